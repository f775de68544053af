//! Facts of the build for `--version` of both programs: commit, compiler, target, profile. Works from a source archive
//! without git.

use std::process::Command;

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-env-changed=IOEX_COMMIT");
    // A worktree's HEAD lies outside of .git; git knows where. The log of HEAD changes with every commit and checkout.
    for name in ["HEAD", "logs/HEAD"] {
        if let Some(path) = output("git", &["rev-parse", "--git-path", name])
            && std::path::Path::new(&path).exists()
        {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    let commit = std::env::var("IOEX_COMMIT")
        .ok()
        .or_else(|| output("git", &["describe", "--always", "--abbrev=12", "--exclude=*"]))
        .unwrap_or_else(|| "unknown".into());
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let compiler = output(&rustc, &["--version"]).unwrap_or_else(|| "unknown".into());
    let of_cargo = |name: &str| std::env::var(name).unwrap_or_else(|_| "unknown".into());
    println!("cargo::rustc-env=IOEX_BUILD_COMMIT={commit}");
    println!("cargo::rustc-env=IOEX_BUILD_COMPILER={compiler}");
    println!("cargo::rustc-env=IOEX_BUILD_TARGET={}", of_cargo("TARGET"));
    println!("cargo::rustc-env=IOEX_BUILD_PROFILE={}", of_cargo("PROFILE"));
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.to_string())
}
