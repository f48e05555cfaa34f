//! The command line. Pure: text in, [`Command`] or a complaint out.

use std::path::PathBuf;

/// The usage of the program, printed by `--help` and after a mistake.
pub(crate) const USAGE: &str = "\
payment-platform: the example payment platform, and the demo that kills it

usage:
  cargo demo                    tell the story once, check every claim, exit 0 only if all hold
  cargo demo -- --serve         keep the platform running on its usual ports, print signed curl commands
  cargo demo -- --help          this text

options:
  --data DIR     keep databases in DIR instead of a temporary folder
  --seconds N    with --serve: stop by itself after N seconds
  --ports N      with --serve: use the ports from N to N + 4 instead of the usual ones

usual ports: merchant 40002, gateway 40003, order 40004, channel 40005, withdrawal 40014
";

/// One run of the program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Tell the story on free ports.
    Demo { data: Option<PathBuf> },
    /// Run the five services until stopped, on their usual ports or on those from a number on.
    Serve { data: Option<PathBuf>, seconds: Option<u64>, ports: Option<u16> },
    /// Run the gateway alone, configured by the environment: the process that the demo kills.
    Gateway,
    /// Run one service alone, configured by the environment: the processes that a test kills.
    Service { name: String },
    /// Print [`USAGE`].
    Help,
}

/// Reads the arguments that follow the program's name.
///
/// # Errors
/// A sentence that names the argument that is not understood.
pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Command, String> {
    let mut arguments = arguments.into_iter().peekable();
    match arguments.peek().map(String::as_str) {
        Some("gateway") => return Ok(Command::Gateway),
        Some("service") => {
            let name = arguments.nth(1).ok_or("service needs a name, such as order-service")?;
            return Ok(Command::Service { name });
        }
        Some("demo") => {
            arguments.next();
        }
        _ => {}
    }
    let (mut serve, mut data, mut seconds, mut ports) = (false, None, None, None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--serve" => serve = true,
            "--data" => data = Some(PathBuf::from(arguments.next().ok_or("--data needs a folder")?)),
            "--seconds" => {
                let value = arguments.next().ok_or("--seconds needs a number")?;
                seconds = Some(
                    value.parse().map_err(|_| format!("--seconds needs a whole number, not `{value}`"))?,
                );
            }
            "--ports" => {
                let value = arguments.next().ok_or("--ports needs a number")?;
                let first = value.parse().ok().filter(|first| (1..=u16::MAX - 4).contains(first));
                ports = Some(first.ok_or(format!("--ports needs a number from 1 to 65531, not `{value}`"))?);
            }
            other => return Err(format!("`{other}` is not an argument of this program")),
        }
    }
    match (serve, seconds, ports) {
        (true, ..) => Ok(Command::Serve { data, seconds, ports }),
        (false, Some(_), _) => Err("--seconds goes with --serve".to_owned()),
        (false, _, Some(_)) => Err("--ports goes with --serve".to_owned()),
        (false, None, None) => Ok(Command::Demo { data }),
    }
}

#[cfg(test)]
mod tests {
    use super::{Command, parse};

    fn parsed(line: &str) -> Result<Command, String> {
        parse(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn no_argument_tells_the_story() {
        assert_eq!(parsed(""), Ok(Command::Demo { data: None }));
        assert_eq!(parsed("demo"), Ok(Command::Demo { data: None }));
    }

    #[test]
    fn options_are_read_in_any_order() {
        let serve = Command::Serve { data: Some("state".into()), seconds: Some(5), ports: Some(20_000) };
        assert_eq!(parsed("demo --serve --data state --seconds 5 --ports 20000"), Ok(serve.clone()));
        assert_eq!(parsed("demo --seconds 5 --ports 20000 --data state --serve"), Ok(serve));
        assert_eq!(parsed("demo --serve --help"), Ok(Command::Help));
    }

    #[test]
    fn a_mistake_is_named() {
        assert_eq!(parsed("--sreve"), Err("`--sreve` is not an argument of this program".to_owned()));
        assert_eq!(parsed("service"), Err("service needs a name, such as order-service".to_owned()));
        assert_eq!(parsed("--data"), Err("--data needs a folder".to_owned()));
        assert_eq!(
            parsed("--serve --seconds soon"),
            Err("--seconds needs a whole number, not `soon`".to_owned())
        );
        assert_eq!(parsed("--seconds 5"), Err("--seconds goes with --serve".to_owned()));
        assert_eq!(parsed("--ports 5"), Err("--ports goes with --serve".to_owned()));
        for ports in ["0", "65532", "many"] {
            assert!(parsed(&format!("--serve --ports {ports}")).is_err(), "{ports}");
        }
    }
}
