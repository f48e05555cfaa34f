//! The program as a person starts it.

use std::process::{Command, Output};

fn run(flags: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut program = Command::new(env!("CARGO_BIN_EXE_merchant-service"));
    program.env_clear().args(flags).envs(variables.iter().copied()).output().unwrap()
}

#[test]
fn help_names_each_setting_and_starts_nothing() {
    let folder = testkit::temp_dir();
    let place = folder.path().to_str().unwrap();
    let help = run(&["--help"], &[("DATA_DIR", place), ("SERVICE_TOKEN", "a-secret-of-the-tests")]);
    let text = String::from_utf8(help.stdout).unwrap();
    assert!(help.status.success());
    for name in ["PORT", "DATABASE_URL", "OPERATORS", "MERCHANT_SECRETS_KEY", "RUST_LOG"] {
        assert!(text.contains(&format!("[env: {name}]")), "{name} is not in:\n{text}");
    }
    assert!(text.contains("[default: 40002]") && !text.contains("a-secret-of-the-tests"), "{text}");
    assert_eq!(std::fs::read_dir(place).unwrap().count(), 0);
}

#[test]
fn a_setting_that_cannot_work_is_one_line_with_the_remedy() {
    let refused = |flags: &[&str], variables: &[(&str, &str)]| {
        let refused = run(flags, variables);
        assert!(!refused.status.success());
        String::from_utf8(refused.stderr).unwrap()
    };
    let other = if service_shell::POSTGRES { "sqlite:x.sqlite3" } else { "postgres://u:secret@db/pay" };
    let text = refused(&[], &[("DATABASE_URL", other)]);
    assert!(text.contains("run: cargo run -p merchant-service") && !text.contains("secret"), "{text}");
    assert_eq!(text.lines().count(), 1, "{text}");
    assert!(refused(&["--port", "99999"], &[]).contains("PORT 99999 is not in 0..=65535"));
    assert!(refused(&["--prot", "7"], &[]).contains("unexpected argument '--prot'"));
}
