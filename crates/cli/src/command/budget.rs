//! `moor budget`.

use std::collections::BTreeMap;
use std::process::ExitCode;

use mooring_harness::{Resource, amounts, budget_of, settle};
use mooring_journal::{Amounts, Holding, Journal as _, RunId, RunRow};
use serde_json::json;

use crate::args::BudgetArgs;
use crate::command::runs::status;
use crate::command_error::CommandError;
use crate::home::Home;
use crate::host::now_ms;

pub(crate) async fn budget(args: &BudgetArgs) -> Result<ExitCode, CommandError> {
    let home = Home::find()?;
    let journal = home.journal()?;
    if let Some(run) = &args.settle {
        let run = RunId(run.clone());
        let mut found = false;
        for holding in journal.holdings().await? {
            if holding.open && holding.holder == run {
                found = true;
                settle(&journal, &holding.account, &run, "moor budget").await?;
            }
        }
        if !found {
            return Err(CommandError::input(format!(
                "nothing is set aside for run {run}. `moor budget` lists for which runs something is"
            )));
        }
    }
    let mut accounts: BTreeMap<String, Vec<Holding>> = BTreeMap::new();
    let mut limits: BTreeMap<String, Amounts> = BTreeMap::new();
    for (name, tenant) in &home.config()?.tenants {
        let account = tenant.account(name, now_ms());
        limits.insert(account.clone(), amounts(|resource| tenant.limits.of(resource)));
        accounts.entry(account).or_default();
    }
    for holding in journal.holdings().await? {
        accounts.entry(holding.account.clone()).or_default().push(holding);
    }
    let rows: BTreeMap<RunId, RunRow> =
        journal.runs(None).await?.into_iter().map(|row| (row.id.clone(), row)).collect();
    let stands = |run: &RunId| rows.get(run).map_or("never begun", status).to_owned();
    let json = args.json || !crate::view::people();
    if accounts.is_empty() && !json {
        crate::view::line("no accounts: no run had a tenant, and the configuration file describes none")?;
    }
    for (account, holdings) in &accounts {
        let sum = |open: bool| {
            let mut sum = Amounts::new();
            for holding in holdings.iter().filter(|holding| holding.open == open) {
                for (name, amount) in &holding.amounts {
                    let total = sum.entry(name.clone()).or_default();
                    *total = total.saturating_add(*amount);
                }
            }
            sum
        };
        let (used, aside, limit) = (sum(false), sum(true), limits.get(account));
        let open = holdings.iter().filter(|holding| holding.open);
        if json {
            let run = |holding: &Holding| json!({"run": holding.holder, "status": stands(&holding.holder), "amounts": told(&holding.amounts)});
            let line = json!({
                "account": account,
                "limit": limit.map(told),
                "used": told(&used),
                "reserved": told(&aside),
                "runs": open.map(run).collect::<Vec<_>>(),
            });
            crate::view::line(&line.to_string())?;
            continue;
        }
        crate::view::line(&crate::view::text::safe(account))?;
        for resource in Resource::ALL {
            let of = |amounts: &Amounts| budget_of(amounts).of(resource);
            let most = limit.and_then(of);
            if most.is_none() && of(&used).is_none() && of(&aside).is_none() {
                continue;
            }
            let show = |amount: Option<u128>| resource.show(amount.unwrap_or(0));
            let most = most.map_or(String::new(), |most| format!(" of {}", resource.show(most)));
            let aside = of(&aside).filter(|aside| *aside > 0);
            let aside = aside.map_or(String::new(), |aside| format!(" · {} set aside", resource.show(aside)));
            crate::view::line(&format!("    used {}{most}{aside}", show(of(&used))))?;
        }
        for holding in open {
            let (run, word) = (&holding.holder, stands(&holding.holder));
            let next = match word.as_str() {
                "running" | "starting" => String::new(),
                _ => format!(" · give back: moor budget --settle {run}"),
            };
            crate::view::line(&format!("    set aside for run {run} · {word}{next}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// Amounts in the units that people set limits in.
fn told(amounts: &Amounts) -> serde_json::Value {
    json!(budget_of(amounts))
}
