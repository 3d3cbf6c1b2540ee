//! Accounts: what runs have set aside of an account, and what they used of it.
//!
//! One row for each run of an account, whose amounts count against it whole: what is set aside while the run goes on,
//! what it used once it is over. A sum over the rows is all that a new reservation has to know, and the write
//! transaction that it is made in keeps two processes from being given the same.

use rusqlite::{Connection, Row};

use super::trouble::{Home, Trouble};
use crate::store::grant;
use crate::{Amounts, Holding, RunId};

pub(crate) fn reserve(
    conn: &Connection,
    home: &Home,
    account: &str,
    holder: &RunId,
    want: &Amounts,
    limit: &Amounts,
) -> Result<Amounts, Trouble> {
    let mut own = None;
    let mut others = Amounts::new();
    for holding in list(conn, home, Some(account))? {
        if holding.holder == *holder {
            own = Some(holding);
            continue;
        }
        for (name, amount) in holding.amounts {
            let sum = others.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
    }
    let amounts = grant(own.as_ref(), want, limit, &others);
    hold(conn, account, holder, true, &amounts)?;
    Ok(amounts)
}

pub(crate) fn hold(
    conn: &Connection,
    account: &str,
    holder: &RunId,
    open: bool,
    amounts: &Amounts,
) -> Result<(), Trouble> {
    // A map of names to integers can always be written.
    let amounts = serde_json::to_string(amounts).unwrap_or_default();
    conn.prepare_cached(
        "INSERT INTO holdings (account, holder, open, amounts) VALUES (?1, ?2, ?3, ?4)
         ON CONFLICT (account, holder) DO UPDATE SET open = excluded.open, amounts = excluded.amounts",
    )?
    .execute((account, &holder.0, open, amounts))?;
    Ok(())
}

/// The holdings of one account, or of all.
pub(crate) fn list(conn: &Connection, home: &Home, account: Option<&str>) -> Result<Vec<Holding>, Trouble> {
    let mut statement = conn.prepare_cached(
        "SELECT account, holder, open, amounts FROM holdings
         WHERE ?1 IS NULL OR account = ?1 ORDER BY account, holder",
    )?;
    let mut rows = statement.query([account])?;
    let mut list = Vec::new();
    while let Some(row) = rows.next()? {
        list.push(read(row, home)?);
    }
    Ok(list)
}

fn read(row: &Row<'_>, home: &Home) -> Result<Holding, Trouble> {
    let (account, holder): (String, String) = (row.get(0)?, row.get(1)?);
    let amounts = row.get_ref(3)?.as_str().ok().and_then(|text| serde_json::from_str(text).ok());
    // Counting it as nothing would give the same out twice.
    let Some(amounts) = amounts else {
        return Err(Trouble::Refused(home.failed(format!(
            "what run {holder} holds of the account '{account}' is damaged; correct its row in the table `holdings`"
        ))));
    };
    Ok(Holding { account, holder: RunId(holder), open: row.get(2)?, amounts })
}
