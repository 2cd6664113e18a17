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
    insta::assert_snapshot!(told(text, &[]), @"");
}

#[test]
fn a_schedule_without_its_betas_and_betas_without_their_schedule() {
    let text = r#"[base]
diffusion.schedule = "explicit"
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
    let text = r#"[base]
diffusion.betas = [0.1, 0.2]
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
    let text = r#"[base]
diffusion = { schedule = "explicit", betas = [0.1, 0.2, 0.4] }
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
    let text = r#"[base]
diffusion = { schedule = "explicit", timesteps = 2, betas = [0.1, 1.0] }
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
}

#[test]
fn schedules_at_lengths_where_they_do_not_exist() {
    let text = r#"[grid]
diffusion.schedule = ["sqrt", "constant", "warmup10"]
diffusion.timesteps = [8, 20_000]
[base]
eval.timesteps = "all"
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
}

#[test]
fn a_log_snr_that_rises() {
    let text = r#"[base]
diffusion = { schedule = "logsnr_linear", gamma_min = 6 }
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
}

#[test]
fn values_that_would_decide_nothing() {
    let text = r#"[base]
diffusion.gamma_max = 6
loss = { variant = "simple", snr_gamma = 3, p2_k = 2, rescale = false }
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
}

#[test]
fn a_weight_on_the_bound() {
    let text = r#"[base]
loss.variant = "vlb"
[grid]
loss.weighting = ["constant", "min_snr"]
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
}

#[test]
fn a_learned_diagonal_that_nothing_trains() {
    let text = r#"[base]
diffusion.variance = "learned"
"#;
    insta::assert_snapshot!(told(text, &[]), @"");
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
