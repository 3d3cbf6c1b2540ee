//! Tenants: who pays for runs, and how much all runs of one may use together in a day or a month.

use jiff::Timestamp;
use mooring_harness::Budget;
use mooring_journal::event::Tenant;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::command_error::CommandError;
use crate::home::Home;

/// `[tenants.NAME]` of the configuration file.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "Map<String, Value>")]
pub(crate) struct TenantConfig {
    pub(crate) limits: Budget,
    per: Option<Period>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Period {
    Day,
    Month,
}

/// A name that is not known must not go unheard: what it was meant to limit would have no limit.
impl TryFrom<Map<String, Value>> for TenantConfig {
    type Error = serde_json::Error;

    fn try_from(mut fields: Map<String, Value>) -> Result<Self, Self::Error> {
        let per = fields.remove("per").map(serde_json::from_value).transpose()?;
        Ok(Self { limits: serde_json::from_value(Value::Object(fields))?, per })
    }
}

impl TenantConfig {
    /// The account that a run uses which begins now. Days and months are those of UTC, and a run stays with the
    /// account that it began with.
    pub(crate) fn account(&self, name: &str, now_ms: i64) -> String {
        let date = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        match self.per {
            None => name.to_owned(),
            Some(Period::Day) => format!("{name} {}", date.strftime("%Y-%m-%d")),
            Some(Period::Month) => format!("{name} {}", date.strftime("%Y-%m")),
        }
    }
}

/// The tenant of a new run, where it has one.
pub(crate) fn find(
    home: &Home,
    tenants: &std::collections::BTreeMap<String, TenantConfig>,
    name: Option<&str>,
    now_ms: i64,
) -> Result<Option<Tenant>, CommandError> {
    let Some(name) = name else { return Ok(None) };
    let Some(tenant) = tenants.get(name) else {
        let known: Vec<&str> = tenants.keys().map(String::as_str).collect();
        return Err(CommandError::input(format!(
            "there is no tenant '{name}' (there are: {}). Add [tenants.{name}] to {}",
            if known.is_empty() { "none".to_owned() } else { known.join(", ") },
            home.config_file.display()
        )));
    };
    Ok(Some(Tenant {
        name: name.to_owned(),
        account: tenant.account(name, now_ms),
        limits: json!(tenant.limits),
    }))
}
