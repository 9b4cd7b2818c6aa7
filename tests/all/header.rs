//! `include/bespoke.h` is what cbindgen makes of `src/capi`.

use crate::tree::root;

#[test]
fn the_committed_header_is_the_generated_one() {
    let root = root();
    let config = cbindgen::Config::from_file(root.join("cbindgen.toml")).unwrap();
    let sources = ["src/capi/mod.rs", "src/tensor/launch.rs"].map(|source| root.join(source));
    let builder = sources.iter().fold(cbindgen::Builder::new().with_config(config), |all, one| all.with_src(one));
    let bindings = builder.generate().unwrap();
    let mut generated = Vec::new();
    bindings.write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    let path = root.join("include/bespoke.h");
    if std::env::var_os("BESPOKE_WRITE_HEADER").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).position(|(a, b)| a != b);
    assert!(
        committed == generated,
        "include/bespoke.h is not what src/capi says (first at line {:?}); mend it with\n\n    \
         BESPOKE_WRITE_HEADER=1 cargo test --release --test all header\n",
        differs.map(|line| line + 1)
    );
}
