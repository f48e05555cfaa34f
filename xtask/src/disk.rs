//! Checks that the disk has room for a build: on a full disk the linker ends with a bus error that does not name the cause.

use std::path::Path;
use std::process::Command;

use crate::say;

/// The space that `cargo xtask ci` leaves in the target folder of a fresh clone (6.1 GiB), and some for the tests, in KiB.
const NEEDED: u64 = 7 << 20;

/// Fails if what is free and what has been built before are together less than a whole build.
pub(crate) fn has_room(target: &Path) -> Result<(), String> {
    let free = first_number_after(&output("df", "-Pk", target)?, 3)?;
    let built = first_number_after(&output("du", "-skL", target)?, 0)?;
    say::line(&format!("    {} GiB free, {} GiB built before", free >> 20, built >> 20));
    enough(free, built, target)
}

fn enough(free: u64, built: u64, place: &Path) -> Result<(), String> {
    if free + built >= NEEDED {
        return Ok(());
    }
    Err(format!(
        "{} GiB are free where {} is, and a whole build takes about {} GiB. Make room, or set CARGO_TARGET_DIR to a \
         folder on another disk.",
        free >> 20,
        place.display(),
        NEEDED >> 20,
    ))
}

fn output(program: &str, option: &str, place: &Path) -> Result<String, String> {
    let output = Command::new(program).args([option.as_ref(), place.as_os_str()]).output();
    let output = output.map_err(|error| format!("failed to run {program}: {error}"))?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The last line is that of the place; its fields are parted by blanks, as POSIX has it for both programs.
fn first_number_after(output: &str, fields: usize) -> Result<u64, String> {
    let line = output.lines().last().unwrap_or_default();
    let number = line.split_whitespace().nth(fields).and_then(|field| field.parse().ok());
    number.ok_or_else(|| format!("no size in what df or du said: {output}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_space_is_the_fourth_field_of_df() {
        let said = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/vda 263174212 33000000 62000000 35% /\n";
        assert_eq!(first_number_after(said, 3), Ok(62_000_000));
    }

    #[test]
    fn used_space_is_the_first_field_of_du() {
        assert_eq!(first_number_after("14680064\t/somewhere/target\n", 0), Ok(14_680_064));
        assert!(first_number_after("", 0).is_err());
    }

    #[test]
    fn a_full_disk_is_told_before_anything_is_built() {
        let error = enough(4 << 20, 0, Path::new("/somewhere")).expect_err("4 GiB are not enough");
        assert!(
            error.starts_with("4 GiB are free where /somewhere is") && error.contains("CARGO_TARGET_DIR"),
            "{error}"
        );
    }

    #[test]
    fn what_was_built_before_needs_no_room_again() {
        assert_eq!(enough(4 << 20, 14 << 20, Path::new("/somewhere")), Ok(()));
    }

    #[test]
    fn this_machine_is_asked() {
        let target = Path::new(env!("CARGO_MANIFEST_DIR"));
        let free = output("df", "-Pk", target).and_then(|said| first_number_after(&said, 3));
        assert!(free.is_ok_and(|free| free > 0));
    }
}
