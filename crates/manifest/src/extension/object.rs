//! How objects are read: by name alone, or from plain text where only the main thing is said.

use schemars::Schema;
use serde_json::{Value, json};

/// Implements `Deserialize` and `Serialize` on a type with `#[serde(remote = "Self")]`, so that it is read from an
/// object, and not from a list as a derived type is too. With `$parse`, text becomes a value by it; an error keeps
/// its path, which an untagged enum would lose.
macro_rules! object {
    ($kind:ident: $expected:literal $(, $parse:expr)?) => {
        impl<'de> serde::Deserialize<'de> for $kind {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Object;

                impl<'de> serde::de::Visitor<'de> for Object {
                    type Value = $kind;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str($expected)
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(self, map: A) -> Result<$kind, A::Error> {
                        $kind::deserialize(serde::de::value::MapAccessDeserializer::new(map))
                    }

                    $(fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$kind, E> {
                        let parse: fn(&str) -> Result<$kind, _> = $parse;
                        parse(text).map_err(E::custom)
                    })?
                }

                deserializer.deserialize_any(Object)
            }
        }

        impl serde::Serialize for $kind {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                $kind::serialize(self, serializer)
            }
        }
    };
}

pub(super) use object;

/// Adds the plain text to an object's schema.
pub(super) fn or_text(schema: &mut Schema) {
    let description = schema.remove("description");
    let object = std::mem::take(schema).to_value();
    let mut either = json!({ "anyOf": [{ "type": "string" }, object] });
    if let (Some(description), Value::Object(either)) = (description, &mut either) {
        either.insert("description".to_owned(), description);
    }
    *schema = Schema::try_from(either).unwrap_or_default();
}
