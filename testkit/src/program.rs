//! Our own binaries, run as a user would run them, and killed as a machine would kill them.

use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpStream};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::Signal;

use crate::leash::{Farewell, Leash, Leashed};
use crate::patience::{LIMIT, deadline, time_left, wait_for};
use crate::process;

/// A running program. It is killed when the value is dropped, and when the test process ends, however that ends.
///
/// Its output on both streams is captured, and part of every panic message here.
#[derive(Debug)]
pub struct Program {
    name: String,
    leashed: Leashed,
    output: Arc<Output>,
    readers: Vec<JoinHandle<()>>,
}

impl Program {
    /// Starts `command`: its program, arguments, environment and folder. Streams set on it are ignored: output is
    /// captured, input is empty. (`env_clear` is invisible from outside a `Command` and has no effect here.)
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::process::Command;
    ///
    /// let mut command = Command::new("/bin/sh");
    /// command.args(["-c", "echo listening on 4711; sleep 60"]);
    /// let mut program = testkit::Program::spawn(command);
    /// assert_eq!(program.wait_for_line("listening on"), "listening on 4711");
    /// program.kill9();
    /// ```
    #[must_use = "the program is killed when this is dropped"]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "a started command must not be changed and started again"
    )]
    pub fn spawn(command: Command) -> Program {
        let name = command.get_program().to_string_lossy().into_owned();
        let start = || {
            let mut leash = Leash::around(&command, Farewell::Kill, None)?;
            leash.command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
            leash.spawn()
        };
        let mut leashed = match start() {
            Ok(leashed) => leashed,
            Err(error) => panic!("failed to start {name}: {error}"),
        };
        let output = Arc::new(Output::default());
        let child = leashed.child();
        let stdout = child.stdout.take().map(|stream| output.capture(stream));
        let stderr = child.stderr.take().map(|stream| output.capture(stream));
        let readers = stdout.into_iter().chain(stderr).collect();
        Program { name, leashed, output, readers }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.leashed.pid().as_raw_pid().unsigned_abs()
    }

    /// Tells whether the program still runs.
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        self.leashed.try_wait().is_none()
    }

    /// Everything it wrote so far, both streams line by line as they came.
    #[must_use]
    pub fn output(&self) -> String {
        self.output.lock().lines.join("\n")
    }

    /// The first line that contains `text`, waiting for it if need be.
    ///
    /// # Panics
    ///
    /// If the program ends without writing such a line, or does not write it within a minute.
    pub fn wait_for_line(&mut self, text: &str) -> String {
        match self.output.wait_for(text) {
            Some(line) => line,
            None => panic!("{} never wrote {text:?}; it wrote:\n{}", self.name, self.output()),
        }
    }

    /// Waits until something accepts connections on this loopback port.
    ///
    /// # Panics
    ///
    /// If the program ends before, or nothing listens within a minute.
    pub fn wait_for_port(&mut self, port: u16) {
        let listens = wait_for(LIMIT, || match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
            Ok(_) => Some(true),
            Err(_) => self.leashed.try_wait().map(|_ended| false),
        });
        assert!(
            listens == Some(true),
            "{} does not listen on {port}; it wrote:\n{}",
            self.name,
            self.output()
        );
    }

    /// Ends it with `kill -9`, with everything it started, and waits until it is gone. Returns how it had ended, if it
    /// was faster.
    pub fn kill9(&mut self) -> ExitStatus {
        let status = self.leashed.kill9();
        self.finish();
        status
    }

    /// Asks it to end (`SIGTERM`, to the process alone, as supervisors do) and waits until it did.
    ///
    /// # Panics
    ///
    /// If it does not end within a minute.
    pub fn terminate(&mut self) -> ExitStatus {
        if self.is_running() {
            process::send(self.leashed.pid(), Signal::TERM);
        }
        self.wait()
    }

    /// Interrupts it as Ctrl-C at the terminal does (`SIGINT`, to all it started) and waits until it ended.
    ///
    /// # Panics
    ///
    /// If it does not end within a minute.
    pub fn interrupt(&mut self) -> ExitStatus {
        self.leashed.signal(Signal::INT);
        self.wait()
    }

    /// Waits until it ends by itself.
    ///
    /// # Panics
    ///
    /// If it does not end within a minute.
    pub fn wait(&mut self) -> ExitStatus {
        match self.wait_within(LIMIT) {
            Some(status) => status,
            None => panic!("{} did not end; it wrote:\n{}", self.name, self.output()),
        }
    }

    /// Waits until it ends by itself; `None` if it still runs after `limit`.
    pub fn wait_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        let status = self.leashed.wait(limit)?;
        self.finish();
        Some(status)
    }

    /// Freezes it (`SIGSTOP`): its connections and leases stay, and nothing moves.
    pub fn pause(&mut self) {
        self.leashed.signal(Signal::STOP);
    }

    /// Ends [`Program::pause`].
    pub fn resume(&mut self) {
        self.leashed.signal(Signal::CONT);
    }

    /// Reads what is left in the pipes, so that [`Program::output`] is complete. A grandchild that escaped the group
    /// may hold a pipe open for ever, so this gives up.
    fn finish(&mut self) {
        let _open_pipe = wait_for(Duration::from_secs(1), || {
            self.readers.iter().all(JoinHandle::is_finished).then_some(())
        });
    }
}

#[derive(Debug, Default)]
struct Output {
    written: Mutex<Written>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Written {
    lines: Vec<String>,
    open_streams: u8,
}

impl Output {
    /// Copies a stream into here on a thread of its own, until it ends.
    fn capture(self: &Arc<Output>, stream: impl Read + Send + 'static) -> JoinHandle<()> {
        self.lock().open_streams += 1;
        let output = Arc::clone(self);
        std::thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                output.lock().lines.push(String::from_utf8_lossy(&line).into_owned());
                output.changed.notify_all();
            }
            output.lock().open_streams -= 1;
            output.changed.notify_all();
        })
    }

    fn wait_for(&self, text: &str) -> Option<String> {
        let deadline = deadline(LIMIT);
        let mut written = self.lock();
        loop {
            if let Some(line) = written.lines.iter().find(|line| line.contains(text)) {
                return Some(line.clone());
            }
            let left = time_left(deadline);
            if written.open_streams == 0 || left.is_zero() {
                return None;
            }
            written = self.changed.wait_timeout(written, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Written> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
