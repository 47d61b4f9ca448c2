use super::super::contract;
use super::*;
use crate::server::cassandra::testing;

/// Accounts with a log of their own, in the keyspace of all tests.
async fn accounts() -> (CassandraAccounts, ()) {
    let cassandra = testing::connect().await;
    (CassandraAccounts::with_log(&cassandra, &testing::unique("log")).await.unwrap(), ())
}

contract::accounts_contract!(accounts().await);
