use probity_txn::{
    Affected as _, Error, Misuse,
    lock::{LockError, Lockable, TryLock},
    on,
};

use super::{Bank, move_60};

pub(crate) struct Account;

impl Lockable for Account {
    type Key = String;
    const TABLE: &'static str = "accounts";
}

#[tokio::test]
async fn locking_a_missing_row_is_an_error() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "lock")
        .run(async |tx| {
            assert!(matches!(tx.try_lock_one::<Account>("z").await?, TryLock::Missing));
            let missing = tx.lock_many::<Account>(["z", "a", "y", "a"]).await;
            assert!(matches!(missing, Err(LockError::Missing { missing: 2, table: "accounts" })));
            tx.lock_one::<Account>("z").await.map(|_| ())
        })
        .await;
    assert!(matches!(outcome, Err(Error::App(LockError::Missing { missing: 1, .. }))));
}

struct Ghost;

impl Lockable for Ghost {
    type Key = String;
    const TABLE: &'static str = "ghosts";
}

struct Nameless;

impl Lockable for Nameless {
    type Key = String;
    const TABLE: &'static str = "accounts";
    const KEY: &'static str = "nmae";
}

#[tokio::test]
async fn an_unknown_table_or_key_is_named_with_the_remedy() {
    let bank = Bank::open(1).await;
    let table = on(&bank.pool, "lock").run(async |tx| tx.lock_one::<Ghost>("a").await.map(|_| ())).await;
    let Err(Error::App(error)) = table else { panic!("{table:?}") };
    assert!(matches!(error, LockError::NoSuchTable { table: "ghosts", key: "id", .. }), "{error:?}");
    assert!(error.to_string().contains("compare Lockable::TABLE"), "the remedy: {error}");

    let key = on(&bank.pool, "lock").run(async |tx| tx.lock_many::<Nameless>(["a"]).await.map(|_| ())).await;
    let Err(Error::App(error)) = key else { panic!("{key:?}") };
    assert!(matches!(error, LockError::NoSuchTable { table: "accounts", key: "nmae", .. }), "{error:?}");
    assert!(matches!(sqlx::Error::from(error), sqlx::Error::Database(_)), "what the database said is kept");
}

struct Order;

impl Lockable for Order {
    type Key = String;
    const TABLE: &'static str = "\"order\"";
    const KEY: &'static str = "\"the key\"";
}

struct Doubled;

impl Lockable for Doubled {
    type Key = String;
    const TABLE: &'static str = "\"say \"\"when\"\"\"";
    const KEY: &'static str = "\"\"\"\"";
}

struct Misspelt;

impl Lockable for Misspelt {
    type Key = String;
    const TABLE: &'static str = "\"order\"";
    const KEY: &'static str = "\"teh key\"";
}

struct Reserved;

impl Lockable for Reserved {
    type Key = String;
    const TABLE: &'static str = "order";
}

struct Numbered;

impl Lockable for Numbered {
    type Key = i64;
    const TABLE: &'static str = "accounts";
}

#[tokio::test]
async fn names_that_need_quotes_have_them() {
    let bank = Bank::open(1).await;
    sqlx::raw_sql(
        "CREATE TABLE \"order\" (\"the key\" TEXT PRIMARY KEY); INSERT INTO \"order\" VALUES ('a')",
    )
    .execute(&bank.pool)
    .await
    .unwrap();
    let locked = on(&bank.pool, "lock").run(async |tx| {
        tx.lock_many::<Order>(["a"]).await?;
        tx.lock_one::<Order>("a").await.map(|row| row.key().clone())
    });
    assert_eq!(locked.await.unwrap(), "a");
    let doubled = "CREATE TABLE \"say \"\"when\"\"\" (\"\"\"\" TEXT PRIMARY KEY);
        INSERT INTO \"say \"\"when\"\"\" VALUES ('a')";
    sqlx::raw_sql(doubled).execute(&bank.pool).await.unwrap();
    on(&bank.pool, "lock").run(async |tx| tx.lock_one::<Doubled>("a").await.map(|_| ())).await.unwrap();
    // SQLite reads an unknown name between double quotes as a string.
    let misspelt =
        on(&bank.pool, "lock").run(async |tx| tx.lock_one::<Misspelt>("a").await.map(|_| ())).await;
    assert!(matches!(misspelt, Err(Error::App(LockError::NoSuchTable { .. }))), "{misspelt:?}");
    let bare = on(&bank.pool, "lock").run(async |tx| tx.lock_one::<Reserved>("a").await.map(|_| ())).await;
    let Err(Error::App(error @ LockError::NoSuchTable { .. })) = bare else { panic!("{bare:?}") };
    assert!(error.to_string().contains("a reserved word needs double quotes"), "the remedy: {error}");
}

#[tokio::test]
async fn a_key_of_another_type_than_its_column_is_named() {
    let bank = Bank::open(1).await;
    sqlx::query("INSERT INTO accounts VALUES ('7', 0)").execute(&bank.pool).await.unwrap();
    let outcome = on(&bank.pool, "lock").run(async |tx| tx.lock_one::<Numbered>(7).await.map(|_| ())).await;
    let Err(Error::App(error)) = outcome else { panic!("{outcome:?}") };
    assert!(matches!(error, LockError::KeyType { table: "accounts", key: "id", .. }), "{error:?}");
}

struct Folded;

impl Lockable for Folded {
    type Key = String;
    const TABLE: &'static str = "folded";
}

/// The column's type makes keys equal that differ in Rust.
pub(crate) async fn equal_by_the_database_alone(bank: &Bank, column: &str, stored: &str, asked: &str) {
    let table =
        format!("CREATE TABLE folded (id {column} PRIMARY KEY); INSERT INTO folded VALUES ('{stored}')");
    sqlx::raw_sql(sqlx::AssertSqlSafe(table)).execute(&bank.pool).await.unwrap();
    let found = on(&bank.pool, "lock")
        .run(async |tx| {
            let keys = tx.lock_many::<Folded>([asked]).await?;
            assert_ne!(keys[0].key(), asked, "the database has it otherwise");
            tx.lock_many::<Folded>([asked, "yy", "zz"]).await.map(|_| ())
        })
        .await;
    let Err(Error::App(LockError::Missing { missing: 2, .. })) = found else { panic!("{found:?}") };
}

#[tokio::test]
async fn many_rows_come_sorted_and_once() {
    // proves: T-7
    let bank = Bank::open(1).await;
    let keys = on(&bank.pool, "lock")
        .run(async |tx| {
            assert!(tx.lock_many::<Account>(Vec::<String>::new()).await?.is_empty());
            let locked = tx.lock_many::<Account>(["b", "a", "b"]).await?;
            Ok::<_, LockError>(locked.iter().map(|row| row.key().clone()).collect::<Vec<_>>())
        })
        .await
        .unwrap();
    assert_eq!(keys, ["a", "b"]);
}

#[tokio::test]
async fn a_witness_is_adopted_into_a_scope_of_its_transaction_only() {
    let bank = Bank::open(1).await;
    on(&bank.pool, "lock")
        .run(async |tx| {
            let account = tx.lock_one::<Account>("a").await?;
            let inside = tx.scope(async |tx| Ok::<_, sqlx::Error>(tx.adopt(&account).is_some())).await;
            assert!(inside.unwrap());
            // A witness cannot leave its closure, so another transaction that meets it runs at the same time, on a thread
            // of its own.
            let options = (*bank.pool.connect_options()).clone();
            let elsewhere = async || {
                let pool =
                    sqlx::pool::PoolOptions::<super::Database>::new().connect_with(options).await.unwrap();
                let other = on(&pool, "other").read_only();
                other.run(async |tx| Ok::<_, sqlx::Error>(tx.adopt(&account).is_some())).await.unwrap()
            };
            let block_on = || {
                tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build()
                    .unwrap()
                    .block_on(elsewhere())
            };
            let other = std::thread::scope(|scope| scope.spawn(block_on).join());
            assert!(!other.unwrap(), "it proves nothing in another transaction");
            tx.advisory("customer", "42").await?;
            move_60(tx).await?;
            Ok::<_, sqlx::Error>(())
        })
        .await
        .unwrap();
    assert_eq!(bank.balance("b").await, 60);
}

#[tokio::test]
async fn a_guarded_update_that_changes_no_row_is_an_error() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "guarded")
        .run(async |tx| {
            let nothing = "UPDATE accounts SET balance = balance - 60 WHERE id = 'b' AND balance >= 60";
            assert!(!sqlx::query(nothing).execute(&mut *tx).await?.at_most_one()?);
            sqlx::query(nothing).execute(&mut *tx).await?.expect_one()?;
            Ok::<_, sqlx::Error>(())
        })
        .await;
    assert!(matches!(outcome, Err(Error::App(sqlx::Error::RowNotFound))));
}

#[tokio::test]
async fn a_run_that_declares_to_only_read_gets_no_lock_and_no_witness() {
    let bank = Bank::open(1).await;
    let row = on(&bank.pool, "report")
        .read_only()
        .run(async |tx| tx.lock_one::<Account>("a").await.map(|_| ()))
        .await;
    let name = on(&bank.pool, "report")
        .read_only()
        .run(async |tx| tx.advisory("customer", "42").await.map(|_| ()))
        .await;
    for outcome in [row, name] {
        let Err(Error::Misuse(misuse)) = outcome else { panic!("{outcome:?}") };
        assert!(misuse.to_string().contains("leave read_only() out"), "the remedy: {misuse}");
    }
}

#[tokio::test]
async fn a_lock_of_too_many_rows_is_not_taken_for_missing_rows() {
    let bank = Bank::open(1).await;
    let outcome = on(&bank.pool, "lock")
        .run(async |tx| {
            let keys = (0..1001).map(|number| format!("n{number}"));
            let refused = tx.lock_many::<Account>(keys).await;
            assert!(matches!(refused, Err(LockError::TooMany { limit: 1000 })), "{refused:?}");
            Ok::<_, sqlx::Error>("not there")
        })
        .await;
    assert!(matches!(outcome, Err(Error::Misuse(Misuse::Lock { .. }))), "{outcome:?}");
}
