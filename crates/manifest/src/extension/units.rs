//! Amounts as people write them: `512MiB`, `30m`, `1.5`. Each is kept exactly and written again in one form.

use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Why a text is no amount.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UnitError {
    /// It is no number of bytes.
    #[error("'{0}' is no size; write it as 512MiB or 2GiB")]
    Size(String),
    /// It is no length of time.
    #[error("'{0}' is no length of time; write it as 90s, 30m or 2h")]
    Seconds(String),
    /// It is no number of processors.
    #[error("'{0}' is no number of processors; write a number above 0, such as 1.5")]
    Cpu(String),
}

/// A number of bytes, above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(u64);

/// A length of time in whole seconds, above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seconds(u64);

/// A number of processors, in thousandths, above 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cpu(u32);

const SIZES: [(&str, u64); 10] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("G", 1 << 30),
    ("M", 1 << 20),
    ("K", 1 << 10),
];

const TIMES: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// A whole number with a unit, as a multiple of the smallest.
fn amount(text: &str, units: &[(&str, u64)], plain: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|char: char| char.is_ascii_alphabetic() || char == ' ');
    let unit = text[digits.len()..].trim();
    let factor = if unit.is_empty() || unit == plain {
        1
    } else {
        units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)?
    };
    digits.parse::<u64>().ok()?.checked_mul(factor).filter(|amount| *amount > 0)
}

impl Size {
    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }

    /// That many bytes; `None` for 0.
    pub fn from_bytes(bytes: u64) -> Option<Self> {
        (bytes > 0).then_some(Self(bytes))
    }
}

impl FromStr for Size {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        amount(text, &SIZES, "B").map(Self).ok_or_else(|| UnitError::Size(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES[..4].iter().find(|(_, factor)| self.0.is_multiple_of(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => write!(f, "{}B", self.0),
        }
    }
}

impl Seconds {
    pub(super) const TEN_MINUTES: Self = Self(600);

    /// The number of seconds.
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// That many seconds; `None` for 0.
    pub fn new(seconds: u64) -> Option<Self> {
        (seconds > 0).then_some(Self(seconds))
    }

    /// The same as a duration.
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }
}

impl FromStr for Seconds {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        amount(text, &TIMES, "s").map(Self).ok_or_else(|| UnitError::Seconds(text.to_owned()))
    }
}

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (unit, factor) =
            TIMES.iter().find(|(_, factor)| self.0.is_multiple_of(*factor)).unwrap_or(&("s", 1));
        write!(f, "{}{unit}", self.0 / factor)
    }
}

impl Cpu {
    /// The number of processors.
    pub fn cpus(self) -> f64 {
        f64::from(self.0) / 1000.0
    }

    /// That many processors, to the thousandth; `None` for what is not above 0 or absurdly large.
    pub fn from_cpus(cpus: f64) -> Option<Self> {
        let thousandths = (cpus * 1000.0).round();
        (1.0..=10_000_000.0).contains(&thousandths).then_some(Self(thousandths as u32))
    }
}

impl FromStr for Cpu {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let cpus = text.trim().parse().ok().and_then(Self::from_cpus);
        cpus.ok_or_else(|| UnitError::Cpu(text.to_owned()))
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.cpus().fmt(f)
    }
}

/// A number, or a text with a unit.
struct NumberOrText<T>(std::marker::PhantomData<T>);

impl<T: FromStr<Err = UnitError>> de::Visitor<'_> for NumberOrText<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number, or text with a unit")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }

    fn visit_f64<E: de::Error>(self, number: f64) -> Result<T, E> {
        self.visit_str(&number.to_string())
    }
}

macro_rules! wire {
    ($kind:ident, $schema:tt) => {
        impl<'de> Deserialize<'de> for $kind {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_any(NumberOrText(std::marker::PhantomData))
            }
        }

        impl JsonSchema for $kind {
            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($kind).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    };
}

wire!(Size, {
    "description": "A number of bytes, or text such as 512MiB or 2GB.",
    "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^[0-9]+ *([TGMK]iB|[GM]B|kB|[GMKB])?$" }],
});
wire!(Seconds, {
    "description": "A number of seconds, or text such as 90s, 30m, 2h or 1d.",
    "anyOf": [{ "type": "integer", "minimum": 1 }, { "type": "string", "pattern": "^[0-9]+ *[smhd]?$" }],
});
wire!(Cpu, {
    "description": "A number of processors, such as 1.5.",
    "type": "number",
    "exclusiveMinimum": 0,
});

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Cpu {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.is_multiple_of(1000) {
            serializer.serialize_u32(self.0 / 1000)
        } else {
            serializer.serialize_f64(self.cpus())
        }
    }
}
