fn main() {
    let a: Vec<String> = std::env::args().collect();
    let g = ddpm_lab::config::load(a[1].as_ref(), &a[3..].to_vec(), &|s| ddpm_lab::data::inspect(s).map_err(|e| e.to_string()))
        .unwrap_or_else(|e| panic!("{e:?}"));
    let s = ddpm_lab::store::ResultsStore::open(a[2].as_ref()).unwrap();
    for r in &g.runs {
        let d = s.run_dir(&r.slug, &r.id.0).unwrap();
        d.create(&r.config.to_toml()).unwrap();
        println!("{}", d.path().display());
    }
}
