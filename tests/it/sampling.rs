//! `sample` and `posterior`, as typed.

use crate::lab::{Lab, TINY};
use ddpm_lab::data::hdf5::H5File;
use std::path::Path;

/// A store with one run of each kind of data: digits, points, bits.
fn trained() -> Lab {
    let lab = Lab::new();
    lab.write("tiny.toml", TINY);
    lab.ok(&["sweep", "tiny.toml", "diffusion.schedule=cosine"]);
    let small = "model.kind=mlp model.channels=[16] model.dropout=0 diffusion.timesteps=30 train.steps=20 train.batch_size=64 \
                 train.micro_batch=64 eval.images=20 eval.test_images=20 eval.timesteps=all eval.every=20 sample.count=50";
    for (name, set) in [
        ("points", "data.name=swiss_roll"),
        ("bits", "data.name=heartbeat diffusion.kernel=binomial diffusion.schedule=jsd diffusion.prediction=x0"),
    ] {
        lab.write("empty.toml", "[base]\nlog.every = 5\n");
        let name = format!("name={name}");
        let args: Vec<&str> =
            ["sweep", "empty.toml", &name].into_iter().chain(small.split_whitespace()).chain(set.split_whitespace()).collect();
        lab.ok(&args);
    }
    lab
}

fn run_of(lab: &Lab, part: &str) -> String {
    let found: Vec<String> = lab
        .runs()
        .iter()
        .map(|r| r.to_str().unwrap().to_owned())
        .filter(|r| Path::new(r).file_name().unwrap().to_str().unwrap().starts_with(part))
        .collect();
    assert_eq!(found.len(), 1, "{part}: {found:?}");
    found[0].clone()
}

fn read(lab: &Lab, file: &str, array: &str) -> (Vec<usize>, Vec<f32>) {
    let file = H5File::open(&lab.path(file)).unwrap();
    let info = file.arrays().unwrap().into_iter().find(|a| a.name == array).unwrap_or_else(|| panic!("no {array}"));
    (info.shape, file.read_f32(array).unwrap())
}

fn is_png(lab: &Lab, file: &str) {
    assert!(std::fs::read(lab.path(file)).unwrap().starts_with(b"\x89PNG"), "{file}");
}

#[test]
fn a_trained_run_is_sampled_in_every_way() {
    let lab = trained();
    let digits = run_of(&lab, "digits");

    // What the run itself drew, from the same weights and noise.
    lab.ok(&["sample", &digits, "--count", "4", "--grid", "again.png"]);
    let own = std::fs::read(Path::new(&digits).join("samples/step-24.png")).unwrap();
    assert_eq!(std::fs::read(lab.path("again.png")).unwrap(), own);

    let said = lab.ok(&[
        "sample",
        &digits,
        "--count",
        "6",
        "--sampler",
        "ddim",
        "--eta",
        "0.5",
        "--steps",
        "12",
        "--spacing",
        "trailing",
        "--grid",
        "g.png",
        "--strip",
        "s.png",
        "--frames",
        "5",
        "--arrays",
        "a.h5",
        "--trajectory",
    ]);
    assert!(said.contains("12 of 30 steps") && said.contains("ddim, eta = 0.5") && said.contains("step 24, ema weights"), "{said}");
    is_png(&lab, "g.png");
    is_png(&lab, "s.png");
    let (shape, samples) = read(&lab, "a.h5", "samples");
    assert_eq!(shape, [6, 8, 8, 1]);
    let (shape, way) = read(&lab, "a.h5", "x_t");
    assert_eq!(shape, [6, 6, 8, 8, 1]);
    assert_eq!(way[way.len() - samples.len()..], samples);
    let (_, t) = read(&lab, "a.h5", "t");
    assert!(t[0] == 30.0 && t[5] == 0.0 && t.windows(2).all(|w| w[0] > w[1]), "{t:?}");
    assert_eq!(read(&lab, "a.h5", "predicted_x0").0, shape);

    // Fewer samples are the first of more; another seed gives others; raw weights others still.
    let options = ["--sampler", "ddim", "--eta", "0.5", "--steps", "12", "--spacing", "trailing", "--arrays", "b.h5"];
    let of = |more: &[&str]| {
        lab.ok(&[&["sample", &digits], &options[..], more].concat());
        read(&lab, "b.h5", "samples").1
    };
    // The network sees other batches, which may change last bits.
    let close = |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-3);
    assert!(close(&of(&["--count", "2"]), &samples[..128]));
    assert!(!close(&of(&["--count", "2", "--seed", "5"]), &samples[..128]));
    assert!(!close(&of(&["--count", "2", "--weights", "raw"]), &samples[..128]));

    let said = lab.ok(&["sample", &digits, "--count", "5", "--interpolate", "i.png", "--invert", "--grid", "v.png", "--arrays", "c.h5"]);
    assert!(said.contains("5 test examples encoded and decoded") && said.contains("mean squared error"), "{said}");
    is_png(&lab, "i.png");
    is_png(&lab, "v.png");
    assert_eq!(read(&lab, "c.h5", "interpolated").0, [5, 11, 8, 8, 1]);
    let (_, latents) = read(&lab, "c.h5", "latents");
    assert!(latents.len() == 5 * 64 && latents.iter().all(|z| z.is_finite()));

    let points = run_of(&lab, "swiss_roll");
    lab.ok(&["sample", &points, "--count", "40", "--steps", "5,5", "--strip", "p.png", "--grid", "pg.png", "--interpolate", "pi.png"]);
    ["p.png", "pg.png", "pi.png"].iter().for_each(|f| is_png(&lab, f));

    let bits = run_of(&lab, "heartbeat");
    lab.ok(&["sample", &bits, "--count", "9", "--steps", "10", "--strip", "bs.png", "--arrays", "d.h5"]);
    let (_, x) = read(&lab, "d.h5", "samples");
    assert!(x.len() == 180 && x.iter().all(|x| x.abs() == 1.0));
}

#[test]
fn what_is_hidden_is_filled_in_and_what_is_seen_stays() {
    let lab = trained();
    let digits = run_of(&lab, "digits");
    for method in [&["--rounds", "2"][..], &["--method", "renoise"]] {
        let said = lab.ok(&[
            &["posterior", &digits, "--inpaint", "half-left", "--count", "3", "--draws", "2", "--steps", "10", "--arrays", "p.h5"],
            method,
        ]
        .concat());
        assert!(said.contains("32 of 64 values hidden") && said.contains("mean of 2 samples") && said.contains('±'), "{said}");
        is_png(&lab, "posterior.png");
        let ((_, truth), (shape, samples)) = (read(&lab, "p.h5", "truth"), read(&lab, "p.h5", "samples"));
        assert_eq!(shape, [3, 2, 8, 8, 1]);
        for (i, sample) in samples.chunks_exact(64).enumerate() {
            let truth = &truth[i / 2 * 64..][..64];
            for (j, (a, b)) in sample.iter().zip(truth).enumerate() {
                assert!(j % 8 < 4 || a == b, "{method:?}: a pixel that was seen has changed");
            }
            assert_ne!(sample, truth);
        }
        assert_ne!(samples[..64], samples[64..128], "two samples of one image differ");
    }
    let said = lab.ok(&["posterior", &digits, "--denoise", "0.5", "--count", "3", "--draws", "2", "--out", "d.png"]);
    assert!(said.contains("the observation") && said.contains("sigma = 0.5, method sd15"), "{said}");
    is_png(&lab, "d.png");
    let said = lab.ok(&["posterior", &digits, "--denoise", "0.5", "--count", "3", "--draws", "2", "--method", "renoise"]);
    assert!(said.contains("method renoise: from t = "), "{said}");
    // White is hidden: one pixel.
    let mut mask = image::GrayImage::new(8, 8);
    mask.put_pixel(3, 2, image::Luma([255]));
    mask.save(lab.path("mask.png")).unwrap();
    assert!(lab.ok(&["posterior", &digits, "--inpaint", "mask.png", "--count", "2", "--draws", "1"]).contains("1 of 64 values hidden"));

    let points = run_of(&lab, "swiss_roll");
    let said = lab.ok(&["posterior", &points, "--inpaint", "x", "--count", "6", "--draws", "20", "--out", "pp.png", "--arrays", "pp.h5"]);
    assert!(said.contains("1 of 2 values hidden"), "{said}");
    is_png(&lab, "pp.png");
    let ((_, truth), (_, samples)) = (read(&lab, "pp.h5", "truth"), read(&lab, "pp.h5", "samples"));
    assert!(samples.chunks_exact(2).enumerate().all(|(i, p)| p[1] == truth[i / 20 * 2 + 1]));

    let bits = run_of(&lab, "heartbeat");
    let said = lab.ok(&["posterior", &bits, "--inpaint", "half-right", "--count", "4", "--draws", "3"]);
    assert!(said.contains("10 of 20 values hidden") && said.contains("wrong bits"), "{said}");
    assert!(lab.ok(&["posterior", &bits, "--denoise", "0.8", "--count", "4", "--draws", "3"]).contains("wrong bits"));
}

#[test]
fn what_cannot_be_sampled_is_refused_with_a_reason() {
    let lab = trained();
    let (digits, bits, points) = (run_of(&lab, "digits"), run_of(&lab, "heartbeat"), run_of(&lab, "swiss_roll"));
    let refused = |args: &[&str], reason: &str| {
        let said = lab.run(args);
        assert_eq!(said.code, 2, "{args:?}: {said:?}");
        assert!(said.err.contains(reason) && said.err.contains("error:"), "{args:?}: {}", said.err);
    };
    refused(&["sample", &digits, "--eta", "0.5"], "--eta is an option of ddim");
    refused(&["sample", &digits, "--sampler", "ddim", "--eta", "2"], "--eta is 2");
    refused(&["sample", &digits, "--sampler", "ddim", "--eta", "1", "--invert"], "a map without noise");
    refused(&["sample", &digits, "--steps", "31"], "31 steps cannot be kept of 30 timesteps");
    refused(&["sample", &digits, "--steps", "1"], "at least 2");
    refused(&["sample", &digits, "--steps", "x"], "is no number of steps");
    refused(&["sample", &digits, "--steps", "5,5", "--spacing", "leading"], "takes a single number");
    refused(&["sample", &digits, "--count", "0"], "nothing to draw");
    refused(&["sample", &bits, "--sampler", "ddim"], "bits");
    refused(&["sample", &bits, "--invert"], "bits");
    refused(&["posterior", &bits, "--denoise", "0.5", "--method", "renoise"], "no x_t of the Binomial kernel");
    refused(&["posterior", &digits, "--inpaint", "x"], "coordinates of points");
    refused(&["posterior", &points, "--inpaint", "half-left"], "a point has two coordinates");
    refused(&["posterior", &digits, "--inpaint", "middle"], "a mask is half-left");
    refused(&["posterior", &digits, "--denoise", "0"], "above 0");
    refused(&["posterior", &digits, "--denoise", "0.5", "--rounds", "3"], "an option of --inpaint");
    refused(&["posterior", &digits], "required");
    image::GrayImage::new(4, 4).save(lab.path("small.png")).unwrap();
    refused(&["posterior", &digits, "--inpaint", "small.png"], "it is 4 × 4 pixels, the data is 8 × 8");
    assert_eq!(lab.run(&["sample", "rffffffffffff"]).code, 4);
    assert_eq!(Lab::new().run(&["sample", "latest"]).code, 4);

    for checkpoint in std::fs::read_dir(Path::new(&digits).join("checkpoints")).unwrap() {
        std::fs::remove_file(checkpoint.unwrap().path()).unwrap();
    }
    refused(&["sample", &digits], "checkpoint");
}
