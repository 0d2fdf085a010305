//! Golden cases: `tests/golden/NAME.in` becomes `NAME.out`. `UPDATE=1` rewrites what has changed.

use std::path::PathBuf;

use mesh_plan::compile;

use crate::{render::render, world::World};

#[test]
#[expect(clippy::disallowed_methods, reason = "a test reads its cases")]
fn golden_cases() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let update = std::env::var("UPDATE").is_ok_and(|value| value == "1");
    let mut cases: Vec<PathBuf> = std::fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "in"))
        .collect();
    cases.sort();
    assert!(
        cases.len() >= 10,
        "cases are missing in {}",
        folder.display()
    );
    let mut failed = Vec::new();
    for case in cases {
        let world = World::parse(&std::fs::read_to_string(&case).unwrap());
        let compiled = compile(&world.input()).unwrap();
        let found = render(&compiled, &world.questions);
        let out = case.with_extension("out");
        let wanted = std::fs::read_to_string(&out).unwrap_or_default();
        if found == wanted {
            continue;
        }
        if update {
            std::fs::write(&out, found).unwrap();
        } else {
            failed.push(format!(
                "{}:\n--- wanted\n{wanted}\n--- found\n{found}",
                case.display()
            ));
        }
    }
    assert!(
        failed.is_empty(),
        "{}\nUPDATE=1 rewrites them",
        failed.join("\n")
    );
}
