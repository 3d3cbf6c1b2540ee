//! The tenant's account: a run sets aside what it may use before it does anything, and says what it used once it is
//! over. A run that died keeps what it set aside, until it is resumed or settled from its journal.

use mooring_capability::BoxFuture;
use mooring_journal::event::BudgetGranted;
use mooring_journal::{Amounts, Event, Journal, JournalError, RunId};
use serde::Deserialize;

use super::{Driver, fold, json};
use crate::budget::{Budget, Resource, Spent};
use crate::{HarnessError, State, Status};

/// Picodollars to a microdollar: an account counts whole millionths.
const MICRO: u128 = 1_000_000;

/// Amounts as an account has them, by the names of the limits: `max_cost` in millionths, times in milliseconds.
/// What is used is rounded up.
pub fn amounts(of: impl Fn(Resource) -> Option<u128>) -> Amounts {
    let amount = |resource: Resource| {
        let units = of(resource)?;
        let units = if resource == Resource::Cost { units.div_ceil(MICRO) } else { units };
        Some((resource.limit().to_owned(), u64::try_from(units).unwrap_or(u64::MAX)))
    };
    Resource::ALL.into_iter().filter_map(amount).collect()
}

/// An account's amounts as a budget.
pub fn budget_of(amounts: &Amounts) -> Budget {
    Budget::by(|resource| {
        let amount = u128::from(*amounts.get(resource.limit())?);
        Some(if resource == Resource::Cost { amount.saturating_mul(MICRO) } else { amount })
    })
}

impl Driver<'_> {
    /// Sets aside what the run may use, where it has a tenant.
    pub(super) async fn open_account(&mut self) -> Result<(), HarnessError> {
        let Some(tenant) = &self.state.started.tenant else { return Ok(()) };
        let account = tenant.account.clone();
        let limit = budget(&tenant.limits);
        let own = self.state.own_limits().budget();
        let (want, limit) = (amounts(|resource| own.of(resource)), amounts(|resource| limit.of(resource)));
        let granted = self.host.journal.reserve(&account, &self.run, &want, &limit).await?;
        self.push(Event::BudgetGranted(BudgetGranted { account, granted: json(&budget_of(&granted)) }))
    }

    /// Gives back what the run did not use, once it is over.
    pub(super) async fn close_account(&mut self) -> Result<(), HarnessError> {
        let Some(tenant) = &self.state.started.tenant else { return Ok(()) };
        if matches!(self.state.status, Status::Running | Status::Waiting) {
            return Ok(());
        }
        let limit = budget(&tenant.limits);
        let used = used(&self.state.spent, &limit);
        Ok(self.host.journal.settle(&tenant.account, &self.run, &used).await?)
    }
}

/// What was used of what an account limits.
fn used(spent: &Spent, limit: &Budget) -> Amounts {
    amounts(|resource| limit.of(resource).map(|_| spent.of(resource)))
}

fn budget(value: &serde_json::Value) -> Budget {
    // What cannot be read grants nothing.
    Deserialize::deserialize(value).unwrap_or(Budget::by(|_| Some(0)))
}

/// Settles what a run without a driver has set aside of an account, from its journal: the runs of its sub-agents that
/// it had not heard of included. Fails while a driver lives.
///
/// # Errors
/// [`JournalError::Driven`] while the run goes on; [`HarnessError::Fold`] where its events do not fit together: what is
/// not known is not given back.
pub async fn settle(
    journal: &dyn Journal,
    account: &str,
    run: &RunId,
    owner: &str,
) -> Result<(), HarnessError> {
    // Held until it is settled, so that nobody goes on with it meanwhile.
    let claim = match journal.claim(run, owner).await {
        // It died before it began.
        Err(JournalError::UnknownRun { .. }) => {
            return Ok(journal.settle(account, run, &Amounts::new()).await?);
        }
        claim => claim?,
    };
    let spent = if claim.last_seq == 0 { Spent::default() } else { spent(journal, run).await? };
    let held = journal.holdings().await?;
    let held = held.iter().find(|holding| holding.account == account && holding.holder == *run);
    let names = held.map(|holding| budget_of(&holding.amounts)).unwrap_or_default();
    Ok(journal.settle(account, run, &used(&spent, &names)).await?)
}

/// What a run has used, with that of its sub-agents' runs which are not over.
fn spent<'a>(journal: &'a dyn Journal, run: &'a RunId) -> BoxFuture<'a, Result<Spent, HarnessError>> {
    Box::pin(async move {
        let state: State = fold(journal, run, |_| {}).await?;
        let mut sum = state.spent;
        for child in state.open_calls().filter_map(|call| call.child.clone()) {
            match spent(journal, &child).await {
                Ok(spent) => sum.add(&spent),
                Err(HarnessError::Empty { .. } | HarnessError::Journal(JournalError::UnknownRun { .. })) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    })
}
