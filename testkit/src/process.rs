//! Processes that are not our children: who belongs to whom, and who is still there.

use rustix::process::{Pid, Signal, kill_process};

/// The processes that `parent` started and that still exist.
pub(crate) fn children_of(parent: Pid) -> Vec<Pid> {
    snapshot()
        .into_iter()
        .filter(|entry| entry.parent == parent.as_raw_pid())
        .filter_map(|entry| Pid::from_raw(entry.pid))
        .collect()
}

/// Tells whether `pid` still runs. A process that ended but was not yet collected by its parent does not.
pub(crate) fn is_running(pid: Pid) -> bool {
    snapshot().iter().any(|entry| entry.pid == pid.as_raw_pid() && !entry.ended)
}

/// Sends `signal`; a process that is gone already is fine.
pub(crate) fn send(pid: Pid, signal: Signal) {
    let _gone_already = kill_process(pid, signal);
}

struct Entry {
    pid: i32,
    parent: i32,
    ended: bool,
}

/// Every process of the machine: from `/proc` where there is one (small images have no `ps`), else from `ps`.
fn snapshot() -> Vec<Entry> {
    match std::fs::read_dir("/proc") {
        Ok(folders) => folders
            .flatten()
            .filter(|folder| folder.file_name().as_encoded_bytes().iter().all(u8::is_ascii_digit))
            .filter_map(|folder| std::fs::read_to_string(folder.path().join("stat")).ok())
            .filter_map(|stat| from_proc(&stat))
            .collect(),
        Err(_) => match std::process::Command::new("ps").args(["-A", "-o", "pid=,ppid=,stat="]).output() {
            Ok(answer) => String::from_utf8_lossy(&answer.stdout).lines().filter_map(from_ps).collect(),
            Err(error) => panic!("failed to list processes, there is neither /proc nor ps: {error}"),
        },
    }
}

/// `4711 (any name, even with ") S 12 ...`: the state and the parent follow the last parenthesis.
fn from_proc(stat: &str) -> Option<Entry> {
    let (pid, rest) = stat.split_once(" (")?;
    let mut fields = rest.rsplit_once(") ")?.1.split(' ');
    let ended = matches!(fields.next()?, "Z" | "X");
    Some(Entry { pid: pid.parse().ok()?, parent: fields.next()?.parse().ok()?, ended })
}

/// `  4711    12 S+`
fn from_ps(line: &str) -> Option<Entry> {
    let mut fields = line.split_whitespace();
    let (pid, parent) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
    Some(Entry { pid, parent, ended: fields.next()?.starts_with('Z') })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_does_not_confuse_the_parser() {
        let entry = from_proc("4711 (a) Z 1 (b)) S 12 4711 4711 0 -1").expect("a line of /proc/<pid>/stat");
        assert_eq!((entry.pid, entry.parent, entry.ended), (4711, 12, false));
    }

    #[test]
    fn a_process_nobody_collected_has_ended() {
        assert!(from_proc("7 (sh) Z 1 7 7 0 -1").expect("a line of /proc/<pid>/stat").ended);
        assert!(from_ps("    7     1 Z+").expect("a line of ps").ended);
        assert!(!from_ps("    7     1 Ss").expect("a line of ps").ended);
    }

    #[test]
    fn this_process_runs_and_is_the_child_of_its_parent() {
        let own = rustix::process::getpid();
        assert!(is_running(own));
        let parent = rustix::process::getppid().expect("tests have a parent");
        assert!(children_of(parent).contains(&own));
    }
}
