//! The process dies around COMMIT, and no caller got an answer.
//!
//! SQLite has no wire on which a message could be lost. Only the process is between the commit and the caller, so it is
//! killed at these places (`kill -9`):
//!
//! | lost by a network | lost with SQLite |
//! |---|---|
//! | COMMIT never reached the server | killed after the last statement, before COMMIT |
//! | the answer was lost | killed after COMMIT, before the run returned |
//! | the server restarted | killed at any moment under load, and started again |
//!
//! Runs are counted so: one writer at a time means one COMMIT at a time, so a process works on many
//! files. At the first two places all its runs wait for each other and then for the end; at the third
//! those count that had said "asked" and not yet "answered".

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use probity_txn::{Error, Policy, create_token_table, on};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;
use testkit::{Program, Rng, Worker};
use tokio::sync::Barrier;

/// Its orders are the place of its death, token or plain, the number of its life, and the folder.
const KILLED: Worker = Worker::named("lost::a_process_that_is_killed");
/// Its order is the folder on a disk that is nearly full.
const FAILING: Worker = Worker::named("lost::a_process_whose_disk_fails");
const RUNS: usize = 200;
const FILES: usize = 20;
/// Under load, so many tasks share a file.
const LOADED_FILES: usize = 4;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    BeforeCommit,
    AfterCommit,
    UnderLoad,
}

const PLACES: [(&str, Place); 3] =
    [("before", Place::BeforeCommit), ("after", Place::AfterCommit), ("load", Place::UnderLoad)];

async fn open(folder: &Path, file: usize) -> SqlitePool {
    let options = probity_txn::sqlite::options(folder.join(format!("{file}.db")));
    let pool = SqlitePoolOptions::new().max_connections(5).connect_with(options).await.unwrap();
    sqlx::query("CREATE TABLE IF NOT EXISTS effects (name TEXT NOT NULL)").execute(&pool).await.unwrap();
    create_token_table(&pool).await.unwrap();
    pool
}

/// Writes its name into the table that refuses nothing; at `place` the process waits for its end.
async fn run(
    pool: &SqlitePool,
    name: &str,
    token: bool,
    place: Option<(Place, Arc<Barrier>)>,
    author: &str,
) -> Result<String, Error<sqlx::Error>> {
    let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Sqlite>| -> Result<String, sqlx::Error> {
        sqlx::query("INSERT INTO effects VALUES (?)").bind(name).execute(&mut *tx).await?;
        match place.clone() {
            Some((Place::BeforeCommit, all)) => wait_for_the_end(all).await,
            Some((Place::AfterCommit, all)) => tx.after_commit(wait_for_the_end(all)),
            Some((Place::UnderLoad, _)) | None => {}
        }
        Ok(author.to_owned())
    };
    let transaction = on(pool, "effect").deadline(std::time::Duration::from_secs(120));
    if token { transaction.once(name).run(body).await } else { transaction.run(body).await }
}

#[expect(clippy::print_stdout, reason = "the test that kills this process reads it")]
async fn wait_for_the_end(all: Arc<Barrier>) {
    if all.wait().await.is_leader() {
        println!("all are there");
    }
    std::future::pending::<()>().await;
}

/// Runs as the process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed() {
    let Some(role) = KILLED.orders() else { return };
    let mut parts = role.splitn(4, ' ');
    let mut part = || parts.next().unwrap();
    let (place, token, life, folder) = (part(), part() == "token", part().to_owned(), part());
    let place = PLACES.iter().find(|(name, _)| *name == place).unwrap().1;
    let all = Arc::new(Barrier::new(FILES));
    let files = if place == Place::UnderLoad { LOADED_FILES } else { FILES };
    let mut pools = Vec::new();
    for file in 0..files {
        pools.push(open(Path::new(folder), file).await);
    }
    let runs: Vec<_> = (0..FILES)
        .map(|task| {
            let (pool, life, all) = (pools[task % files].clone(), life.clone(), Arc::clone(&all));
            tokio::spawn(async move {
                for number in 0.. {
                    let name = format!("{life}/{task}/{number}");
                    println!("asked {name};");
                    run(&pool, &name, token, Some((place, Arc::clone(&all))), "the first life")
                        .await
                        .unwrap();
                    println!("answered {name};");
                }
            })
        })
        .collect();
    for run in runs {
        run.await.unwrap();
    }
}

fn start(place: Place, token: bool, life: usize, folder: &Path) -> Program {
    let place = PLACES.iter().find(|(_, each)| *each == place).unwrap().0;
    let token = if token { "token" } else { "plain" };
    KILLED.start(&format!("{place} {token} {life} {}", folder.display()))
}

/// The names that the process wrote behind `word`.
fn named(output: &str, word: &str) -> BTreeSet<String> {
    let lines = output.lines().filter_map(|line| line.split_once(word)?.1.split_once(';'));
    lines.map(|(name, _)| name.trim().to_owned()).collect()
}

async fn effects(pool: &SqlitePool, name: &str) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM effects WHERE name = ?")
        .bind(name)
        .fetch_one(pool)
        .await
        .unwrap()
}

/// Kills process after process with all its runs at one place, until there were 200.
async fn killed_at(place: Place, token: bool) {
    let folder = testkit::temp_dir();
    let mut runs = 0;
    for life in 0..RUNS.div_ceil(FILES) {
        let mut process = start(place, token, life, folder.path());
        process.wait_for_line("all are there");
        process.kill9();
        assert!(named(&process.output(), "answered ").is_empty(), "nobody got an answer");
        for file in 0..FILES {
            let pool = open(folder.path(), file).await;
            let name = format!("{life}/{file}/0");
            let (there, author) = match place {
                Place::BeforeCommit => (0, "the second life"),
                _ => (1, "the first life"),
            };
            assert_eq!(effects(&pool, &name).await, there, "{place:?}: all or nothing, and the truth");
            if token {
                let answer = run(&pool, &name, true, None, "the second life").await.unwrap();
                assert_eq!((answer.as_str(), effects(&pool, &name).await), (author, 1), "{place:?}");
            }
            pool.close().await;
            runs += 1;
        }
    }
    assert!(runs >= RUNS);
}

#[tokio::test]
async fn killed_before_commit_nothing_was_written() {
    // proves: T-1
    killed_at(Place::BeforeCommit, false).await;
}

#[tokio::test]
async fn killed_before_commit_the_next_run_with_the_token_takes_effect_once() {
    // proves: T-6
    killed_at(Place::BeforeCommit, true).await;
}

#[tokio::test]
async fn killed_after_commit_everything_was_written() {
    // proves: T-2
    killed_at(Place::AfterCommit, false).await;
}

#[tokio::test]
async fn killed_after_commit_the_next_run_with_the_token_gets_its_result() {
    // proves: T-6
    killed_at(Place::AfterCommit, true).await;
}

/// Kills process after process at a random moment under load, until 200 runs had been in flight.
async fn killed_under_load(token: bool) {
    let folder = testkit::temp_dir();
    let mut random = Rng::new(testkit::seed());
    let mut in_flight = 0;
    for life in 0..4 * RUNS / FILES {
        let mut process = start(Place::UnderLoad, token, life, folder.path());
        let (task, number) = (random.between(0, FILES as u64 - 1), random.between(0, 3));
        process.wait_for_line(&format!("answered {life}/{task}/{number};"));
        process.kill9();
        let output = process.output();
        let (asked, answered) = (named(&output, "asked "), named(&output, "answered "));
        let mut pools = Vec::new();
        for file in 0..LOADED_FILES {
            pools.push(open(folder.path(), file).await);
        }
        let pool_of = |name: &str| {
            let task: usize = name.split('/').nth(1).unwrap().parse().unwrap();
            &pools[task % LOADED_FILES]
        };
        for name in &answered {
            assert_eq!(effects(pool_of(name), name).await, 1, "{name} was answered with success");
        }
        for name in asked.difference(&answered) {
            in_flight += 1;
            let pool = pool_of(name);
            assert!(effects(pool, name).await <= 1, "{name}");
            if token {
                run(pool, name, true, None, "the second life").await.unwrap();
                assert_eq!(effects(pool, name).await, 1, "{name}");
            }
        }
        for pool in pools {
            pool.close().await;
        }
        if in_flight >= RUNS {
            return;
        }
    }
    panic!("only {in_flight} runs were in flight at a kill");
}

#[tokio::test]
async fn killed_under_load_each_answer_was_true() {
    // proves: T-2
    killed_under_load(false).await;
}

#[tokio::test]
async fn killed_under_load_each_token_takes_effect_once() {
    // proves: T-6
    killed_under_load(true).await;
}

/// Writes a paper that fits into memory, so that the disk is asked at COMMIT only; says who wrote it.
async fn print(
    pool: &SqlitePool,
    policy: Policy,
    name: &str,
    author: &str,
) -> Result<String, Error<sqlx::Error>> {
    let body = async |tx: &mut probity_txn::Tx<'_, sqlx::Sqlite>| -> Result<String, sqlx::Error> {
        let paper = "INSERT INTO papers VALUES (?, ?, zeroblob(1000000))";
        sqlx::query(paper).bind(name).bind(author).execute(&mut *tx).await?;
        Ok(author.to_owned())
    };
    let run = on(pool, "print").policy(policy);
    if name == "token" { run.once(name).run(body).await } else { run.run(body).await }
}

/// Prints one paper with a token and one without on a disk that is nearly full.
#[tokio::test]
async fn a_process_whose_disk_fails() {
    let Some(folder) = FAILING.orders() else { return };
    let pool = open(Path::new(&folder), 0).await;
    let papers = "CREATE TABLE papers (name TEXT, author TEXT, pages BLOB)";
    sqlx::query(papers).execute(&pool).await.unwrap();
    let plain = super::both::patient();
    // The run with the token asks until both are over.
    let short = Duration::from_secs(2);
    let token = Policy { commit_timeout: short, deadline: short, ..Policy::payments() };
    for (name, policy) in [("plain", plain), ("token", token)] {
        let error = print(&pool, policy, name, "the failing process").await.unwrap_err();
        println!("{name} {:?} {:?};", error.kind(), error.effect());
    }
}

#[tokio::test]
async fn a_commit_that_the_disk_fails_is_unknown_in_process_and_settled_by_its_token_later() {
    // proves: T-2
    // proves: T-6
    let folder = testkit::temp_dir();
    // No file of that process grows beyond 256 or 512 KiB; a write beyond is an I/O error, not a signal.
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' XFSZ; ulimit -f 512; exec \"$0\" \"$@\""]);
    let worker = FAILING.command(&folder.path().display().to_string());
    command.arg(worker.get_program()).args(worker.get_args());
    command.envs(worker.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let mut process = Program::spawn(command);
    process.wait_for_line("plain Unknown Unknown;");
    process.wait_for_line("token ");
    process.wait();
    // A machine so slow that the deadline came before COMMIT was sent may know; then it has to be true.
    let not_applied = process.output().contains("token Deadline NotApplied;");
    assert!(not_applied || process.output().contains("token Unknown Unknown;"), "{}", process.output());

    let pool = open(folder.path(), 0).await;
    let papers = async |name: &str| -> Vec<(String, i64)> {
        sqlx::query_as("SELECT author, length(pages) FROM papers WHERE name = ?")
            .bind(name)
            .fetch_all(&pool)
            .await
            .unwrap()
    };
    for name in ["plain", "token"] {
        let left = papers(name).await;
        assert!(left.is_empty() || left == [("the failing process".to_owned(), 1_000_000)], "{left:?}");
    }
    // The stored row was written by the run that the token names, now and later.
    let left = papers("token").await.len();
    assert!(!not_applied || left == 0, "what was said not to be applied is not there");
    let author = if left == 1 { "the failing process" } else { "the next process" };
    for writer in ["the next process", "a third process"] {
        assert_eq!(print(&pool, Policy::payments(), "token", writer).await.unwrap(), author);
        assert_eq!(papers("token").await, [(author.to_owned(), 1_000_000)]);
    }
}
