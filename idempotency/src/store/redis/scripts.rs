//! The scripts, each one round trip: EVALSHA, and the whole script only when the server does not know it.

use redis::Script;

pub(crate) struct Scripts {
    pub(crate) begin: Script,
    pub(crate) renew: Script,
    pub(crate) mark: Script,
    pub(crate) finish: Script,
    pub(crate) get: Script,
}

impl Scripts {
    pub(crate) fn new() -> Self {
        let script = |body: &str| Script::new(&format!("{}\n{body}", include_str!("prelude.lua")));
        Self {
            begin: script(include_str!("begin.lua")),
            renew: script(include_str!("renew.lua")),
            mark: script(include_str!("mark.lua")),
            finish: script(include_str!("finish.lua")),
            get: script(include_str!("get.lua")),
        }
    }
}
