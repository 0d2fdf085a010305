//! Runs one target: under libFuzzer with `--cfg fuzzing` (target named by `FUZZ_TARGET`), else over given files.

#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod fuzzed {
    //! The fuzzer's entry.

    use std::sync::LazyLock;

    static TARGET: LazyLock<mesh_fuzz::Target> = LazyLock::new(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        mesh_fuzz::named(&name).unwrap_or_else(|| panic!("FUZZ_TARGET={name:?} is no target"))
    });

    libfuzzer_sys::fuzz_target!(|bytes: &[u8]| TARGET(bytes));
}

/// `mesh-fuzz` lists the targets, one a line; `mesh-fuzz TARGET FILE…` runs one over files.
#[cfg(not(fuzzing))]
#[expect(clippy::print_stdout, reason = "the list is what was asked for")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let Some(name) = arguments.next() else {
        for (name, _) in mesh_fuzz::TARGETS {
            println!("{name}");
        }
        return Ok(());
    };
    let target = mesh_fuzz::named(&name).ok_or_else(|| format!("{name} is no target"))?;
    for file in arguments {
        target(&std::fs::read(&file)?);
    }
    Ok(())
}
