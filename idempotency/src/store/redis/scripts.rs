//! The scripts, each one round trip: EVALSHA, and the whole script only when the server does not know it.
//!
//! A script begins with what nearly every call needs, and returns there; what follows is for the rest, since a server
//! runs one script at a time and pays for every line.
//!
//! Invariant: a script writes once, and after that does nothing that can fail. Redis does not undo what a failed script
//! has written, so this is why an error that a script raised is proof that the record is as it was.

use redis::aio::ConnectionLike;
use redis::{Cmd, ErrorKind, RedisResult, ServerErrorKind, ToRedisArgs, Value};

use super::failures::of_script;
use crate::error::Failure;

/// The largest number of arguments of a call, and their bytes together beside a recording: a command that grows
/// argument by argument is allocated again and again.
const ARGUMENTS: usize = 8;
const ROOM: usize = 320;

/// A script that the server may know.
pub(crate) struct Script {
    text: String,
    name: String,
}

impl Script {
    fn of(parts: &[&str]) -> Self {
        let text = parts.concat();
        let name = redis::Script::new(&text).get_hash().to_owned();
        Self { text, name }
    }

    /// A call for the record at `key`, to which arguments can be added.
    pub(crate) fn call<'a>(&'a self, key: &'a [u8]) -> Call<'a> {
        let mut command = Cmd::with_capacity(ARGUMENTS, ROOM);
        command.arg("EVALSHA").arg(&self.name).arg(1).arg(key);
        Call { script: self, command }
    }
}

/// A call on its way together.
pub(crate) struct Call<'a> {
    script: &'a Script,
    command: Cmd,
}

impl Call<'_> {
    pub(crate) fn arg(mut self, argument: impl ToRedisArgs) -> Self {
        self.command.arg(argument);
        self
    }

    pub(crate) async fn send(self, on: &mut (impl ConnectionLike + Send)) -> Result<Value, Failure> {
        let answer = self.try_both(on).await;
        answer.map_err(|error| of_script(&self.script.name, error))
    }

    async fn try_both(&self, on: &mut (impl ConnectionLike + Send)) -> RedisResult<Value> {
        match self.command.query_async(on).await {
            Err(error) if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) => {}
            answer => return answer,
        }
        let mut whole = Cmd::new();
        whole.arg("EVAL").arg(&self.script.text);
        // The name of the script gives way to its text; the rest is the same.
        for argument in self.command.args_iter().skip(2) {
            if let redis::Arg::Simple(argument) = argument {
                whole.arg(argument);
            }
        }
        whole.query_async(on).await
    }
}

pub(crate) struct Scripts {
    pub(crate) claim: Script,
    pub(crate) renew: Script,
    pub(crate) mark: Script,
    pub(crate) finish: Script,
    pub(crate) resolve: Script,
    pub(crate) get: Script,
    pub(crate) permitted: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        let (judge, clock, times) =
            (include_str!("judge.lua"), include_str!("clock.lua"), include_str!("times.lua"));
        let found = include_str!("found.lua");
        let resolve_lost = include_str!("resolve_lost.lua");
        Self {
            claim: Script::of(&[clock, include_str!("claim.lua"), times, include_str!("claim_again.lua")]),
            renew: Script::of(&[
                include_str!("renew.lua"),
                judge,
                clock,
                times,
                include_str!("renew_held.lua"),
            ]),
            mark: Script::of(&[include_str!("mark.lua"), judge, clock, times, found]),
            finish: Script::of(&[include_str!("finish.lua"), judge, clock, times, found]),
            resolve: Script::of(&[include_str!("resolve.lua"), judge, clock, times, resolve_lost]),
            get: Script::of(&[include_str!("get.lua"), judge, clock, times, found]),
            permitted: Script::of(&[include_str!("permitted.lua")]),
        }
    }
}
