//! What people are told of schedules, predictions, losses and weights that cannot be. The snapshots are the specification.

use super::grid_tests::grid;
use super::mistakes::told;

#[test]
fn noise_predicted_where_no_signal_is_left() {
    let text = r#"[base]
diffusion.zero_terminal_snr = true
[grid]
diffusion.prediction = ["v", "epsilon"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × at zero terminal SNR x_T is noise alone, so a prediction of epsilon says nothing of x_0 there
       ╭─[experiments/test.toml:2:31]
     1 │ [base]
     2 │ diffusion.zero_terminal_snr = true
       ·                               ──┬─
       ·                                 ╰── no signal at T
     3 │ [grid]
     4 │ diffusion.prediction = ["v", "epsilon"]
       ·                              ────┬────
       ·                                  ╰── with this `diffusion.prediction`
       ╰────
      help: diffusion.prediction = "v", "x0" or "mean"
    "#);
}

#[test]
fn a_schedule_without_its_betas_and_betas_without_their_schedule() {
    let text = r#"[base]
diffusion.schedule = "explicit"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × schedule "explicit" needs its betas
       ╭─[experiments/test.toml:2:22]
     1 │ [base]
     2 │ diffusion.schedule = "explicit"
       ·                      ─────┬────
       ·                           ╰── no betas
       ╰────
      help: diffusion.betas = [0.1, 0.2, 0.4] with diffusion.timesteps = 3, or a schedule by name
            `diffusion.betas` is not given; its default is []
    "#);
    let text = r#"[base]
diffusion.betas = [0.1, 0.2]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × `diffusion.betas` would do nothing beside diffusion.schedule = "linear"
       ╭─[experiments/test.toml:2:19]
     1 │ [base]
     2 │ diffusion.betas = [0.1, 0.2]
       ·                   ─────┬────
       ·                        ╰── for schedule "explicit" only
       ╰────
      help: diffusion.schedule = "explicit", or leave `diffusion.betas` out
            `diffusion.schedule` is not given; its default is "linear"
    "#);
    let text = r#"[base]
diffusion = { schedule = "explicit", betas = [0.1, 0.2, 0.4] }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × `diffusion.betas` has 3 values, but T is 1000
       ╭─[experiments/test.toml:2:46]
     1 │ [base]
     2 │ diffusion = { schedule = "explicit", betas = [0.1, 0.2, 0.4] }
       ·                                              ───────┬───────
       ·                                                     ╰── 3 values
       ╰────
      help: diffusion.timesteps = 3
            `diffusion.timesteps` is not given; its default is 1000
    "#);
    let text = r#"[base]
diffusion = { schedule = "explicit", timesteps = 2, betas = [0.1, 1.0] }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × `diffusion.betas` cannot be [0.1, 1.0]
       ╭─[experiments/test.toml:2:61]
     1 │ [base]
     2 │ diffusion = { schedule = "explicit", timesteps = 2, betas = [0.1, 1.0] }
       ·                                                             ─────┬────
       ·                                                                  ╰── must be an array of numbers above 0 and below 1
       ╰────
    "#);
}

#[test]
fn schedules_at_lengths_where_they_do_not_exist() {
    let text = r#"[grid]
diffusion.schedule = ["sqrt", "constant", "warmup10"]
diffusion.timesteps = [8, 20_000]
[base]
eval.timesteps = "all"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 4 faults in experiments/test.toml

    Error:
      × schedule "sqrt" needs fewer than 10000 timesteps, but T is 20000: 1 - sqrt(t/T + 1e-4) is 0
      │ before the last
       ╭─[experiments/test.toml:2:23]
     1 │ [grid]
     2 │ diffusion.schedule = ["sqrt", "constant", "warmup10"]
       ·                       ───┬──
       ·                          ╰── does not exist at this T
     3 │ diffusion.timesteps = [8, 20_000]
       ·                           ───┬──
       ·                              ╰── with this `diffusion.timesteps`
     4 │ [base]
       ╰────
      help: fewer than 10000 timesteps, or another schedule
            [grid] is a product: every value of one axis meets every value of the others

    Error:
      × alpha_bar at t = 11398 is 9.88e-101, below 1e-100: no arithmetic finds a signal there
       ╭─[experiments/test.toml:2:31]
     1 │ [grid]
     2 │ diffusion.schedule = ["sqrt", "constant", "warmup10"]
       ·                               ─────┬────
       ·                                    ╰── loses all signal before T
     3 │ diffusion.timesteps = [8, 20_000]
       ·                           ───┬──
       ·                              ╰── with this `diffusion.timesteps`
     4 │ [base]
       ╰────
      help: fewer timesteps, or a gentler schedule
            [grid] is a product: every value of one axis meets every value of the others

    Error:
      × schedule "warmup10" needs at least 10 timesteps, but T is 8: a tenth of them is the warm-up
       ╭─[experiments/test.toml:2:43]
     1 │ [grid]
     2 │ diffusion.schedule = ["sqrt", "constant", "warmup10"]
       ·                                           ─────┬────
       ·                                                ╰── does not exist at this T
     3 │ diffusion.timesteps = [8, 20_000]
       ·                        ┬
       ·                        ╰── with this `diffusion.timesteps`
     4 │ [base]
       ╰────
      help: at least 10 timesteps, or another schedule
            [grid] is a product: every value of one axis meets every value of the others

    Error:
      × alpha_bar at t = 12396 is 9.96e-101, below 1e-100: no arithmetic finds a signal there
       ╭─[experiments/test.toml:2:43]
     1 │ [grid]
     2 │ diffusion.schedule = ["sqrt", "constant", "warmup10"]
       ·                                           ─────┬────
       ·                                                ╰── loses all signal before T
     3 │ diffusion.timesteps = [8, 20_000]
       ·                           ───┬──
       ·                              ╰── with this `diffusion.timesteps`
     4 │ [base]
       ╰────
      help: fewer timesteps, or a gentler schedule
            [grid] is a product: every value of one axis meets every value of the others
    "#);
}

#[test]
fn a_log_snr_that_rises() {
    let text = r#"[base]
diffusion = { schedule = "logsnr_linear", gamma_min = 6 }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × -log SNR must rise from t = 1 to t = T, but goes from 6 to 5
       ╭─[experiments/test.toml:2:55]
     1 │ [base]
     2 │ diffusion = { schedule = "logsnr_linear", gamma_min = 6 }
       ·                                                       ┬
       ·                                                       ╰── not below `diffusion.gamma_max`
       ╰────
      help: gamma_min below gamma_max; [Kingma21] has -13.3 and 5
            `diffusion.gamma_max` is not given; its default is 5.0
    "#);
}

#[test]
fn values_that_would_decide_nothing() {
    let text = r#"[base]
diffusion.gamma_max = 6
loss = { variant = "simple", snr_gamma = 3, p2_k = 2, rescale = false }
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × 4 faults in experiments/test.toml

    Error:
      × `diffusion.gamma_max` would do nothing beside diffusion.schedule = "linear"
       ╭─[experiments/test.toml:2:23]
     1 │ [base]
     2 │ diffusion.gamma_max = 6
       ·                       ┬
       ·                       ╰── for schedule "logsnr_linear" only
     3 │ loss = { variant = "simple", snr_gamma = 3, p2_k = 2, rescale = false }
       ╰────
      help: diffusion.schedule = "logsnr_linear", or leave `diffusion.gamma_max` out
            `diffusion.schedule` is not given; its default is "linear"

    Error:
      × `loss.snr_gamma` would do nothing beside loss.weighting = "constant"
       ╭─[experiments/test.toml:3:42]
     2 │ diffusion.gamma_max = 6
     3 │ loss = { variant = "simple", snr_gamma = 3, p2_k = 2, rescale = false }
       ·                                          ┬
       ·                                          ╰── for "min_snr" and "soft_min_snr" only
       ╰────
      help: loss.weighting = "min_snr" or "soft_min_snr", or leave `loss.snr_gamma` out
            `loss.weighting` is not given; its default is "constant"

    Error:
      × `loss.p2_k` would do nothing beside loss.weighting = "constant"
       ╭─[experiments/test.toml:3:52]
     2 │ diffusion.gamma_max = 6
     3 │ loss = { variant = "simple", snr_gamma = 3, p2_k = 2, rescale = false }
       ·                                                    ┬
       ·                                                    ╰── for "p2" only
       ╰────
      help: loss.weighting = "p2", or leave `loss.p2_k` out
            `loss.weighting` is not given; its default is "constant"

    Error:
      × `loss.rescale` would do nothing beside loss.variant = "simple"
       ╭─[experiments/test.toml:3:65]
     2 │ diffusion.gamma_max = 6
     3 │ loss = { variant = "simple", snr_gamma = 3, p2_k = 2, rescale = false }
       ·                    ────┬───                                     ──┬──
       ·                        │                                          ╰── loss "simple" has no term of the bound
       ·                        ╰── with this `loss.variant`
       ╰────
      help: loss.variant = "vlb" or "hybrid", or leave `loss.rescale` out
    "#);
}

#[test]
fn a_weight_on_the_bound() {
    let text = r#"[base]
loss.variant = "vlb"
[grid]
loss.weighting = ["constant", "min_snr"]
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × `loss.weighting` would do nothing beside loss.variant = "vlb"
       ╭─[experiments/test.toml:4:31]
     1 │ [base]
     2 │ loss.variant = "vlb"
       ·                ──┬──
       ·                  ╰── with this `loss.variant`
     3 │ [grid]
     4 │ loss.weighting = ["constant", "min_snr"]
       ·                               ────┬────
       ·                                   ╰── the bound has its own weights
       ╰────
      help: loss.variant = "simple" or "hybrid", or leave `loss.weighting` out
    "#);
}

#[test]
fn a_learned_diagonal_that_nothing_trains() {
    let text = r#"[base]
diffusion.variance = "learned"
"#;
    insta::assert_snapshot!(told(text, &[]), @r#"
    Error:
      × variance "learned" would get no gradient from loss "simple"
       ╭─[experiments/test.toml:2:22]
     1 │ [base]
     2 │ diffusion.variance = "learned"
       ·                      ────┬────
       ·                          ╰── never trained
       ╰────
      help: loss.variant = "hybrid" (simple, and the bound for the variance), or a fixed variance
            `loss.variant` is not given; its default is "simple"
    "#);
}

#[test]
fn limits_of_losses_are_where_the_messages_say() {
    let accepted = |base: &str| grid(&format!("base = {{ {base} }}"), &[]).is_ok();
    for (inside, outside) in [
        ("diffusion = { schedule = 'sqrt', timesteps = 9999 }", "diffusion = { schedule = 'sqrt', timesteps = 10000 }"),
        ("diffusion = { schedule = 'warmup10', timesteps = 10 }", "diffusion = { schedule = 'warmup10', timesteps = 9 }"),
        ("diffusion = { schedule = 'constant', timesteps = 11397 }", "diffusion = { schedule = 'constant', timesteps = 11398 }"),
        (
            "diffusion = { schedule = 'logsnr_linear', gamma_min = -20, gamma_max = 20 }",
            "diffusion = { schedule = 'logsnr_linear', gamma_min = -20.1 }",
        ),
        (
            "diffusion = { schedule = 'explicit', timesteps = 2, betas = [0.1, 0.2] }",
            "diffusion = { schedule = 'explicit', timesteps = 3, betas = [0.1, 0.2] }",
        ),
        ("diffusion = { schedule = 'jsd', zero_terminal_snr = true, prediction = 'x0' }", "diffusion.zero_terminal_snr = true"),
        (
            "diffusion = { zero_terminal_snr = true, prediction = 'mean' }",
            "diffusion = { zero_terminal_snr = true, prediction = 'epsilon' }",
        ),
        ("diffusion.variance = 'learned', loss = 'hybrid'", "diffusion.variance = 'learned', loss = 'simple'"),
        ("diffusion.variance = 'learned', loss = 'vlb'", "diffusion.variance = 'fixed_small', loss = 'hybrid'"),
        ("loss = { weighting = 'min_snr', snr_gamma = 1 }", "loss = { weighting = 'snr', snr_gamma = 1 }"),
        ("loss = { weighting = 'soft_min_snr', snr_gamma = 1 }", "loss = { weighting = 'soft_min_snr', snr_gamma = 0 }"),
        ("loss = { weighting = 'p2', p2_gamma = 0, p2_k = 0.5 }", "loss = { weighting = 'p2', p2_gamma = 0, p2_k = 0 }"),
        ("loss = { weighting = 'truncated_snr' }", "loss = { weighting = 'truncated_snr', variant = 'vlb' }"),
        ("loss = { variant = 'vlb', rescale = false }", "loss = { variant = 'simple', rescale = false }"),
    ] {
        assert!(accepted(inside), "{inside}");
        assert!(!accepted(outside), "{outside}");
    }
}

#[test]
fn options_are_part_of_an_identity_where_they_decide_a_number_alone() {
    let ids = |text: &str| grid(text, &[]).unwrap().runs.into_iter().map(|r| r.id).collect::<Vec<_>>();
    let plain = ids("base.train.lr = 1e-3");
    // Written defaults change nothing.
    assert_eq!(plain, ids("base.diffusion = { gamma_min = -13.3, gamma_max = 5, betas = [], zero_terminal_snr = false }"));
    assert_eq!(plain, ids("base.loss = { snr_gamma = 5, p2_gamma = 1, p2_k = 1, rescale = true }"));
    for (axis, values) in [
        ("diffusion.schedule = 'logsnr_linear'", "diffusion.gamma_min = [-13.3, -12]"),
        ("diffusion.schedule = 'logsnr_linear'", "diffusion.gamma_max = [5, 6]"),
        ("diffusion = { schedule = 'explicit', timesteps = 2 }", "diffusion.betas = [[0.1, 0.2], [0.1, 0.3]]"),
        ("diffusion.prediction = 'v'", "diffusion.zero_terminal_snr = [false, true]"),
        ("loss.weighting = 'min_snr'", "loss.snr_gamma = [1, 5, 10, 20]"),
        ("loss.weighting = 'p2'", "loss.p2_gamma = [0.5, 1]"),
        ("loss.weighting = 'p2'", "loss.p2_k = [1, 2]"),
        ("loss.variant = 'vlb'", "loss.rescale = [true, false]"),
    ] {
        let ids = ids(&format!("base = {{ {axis} }}\n[grid]\n{values}"));
        assert!(ids.len() >= 2 && ids.iter().collect::<std::collections::HashSet<_>>().len() == ids.len(), "{values}");
    }
}
