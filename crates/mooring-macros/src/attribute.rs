//! What stands in the attribute: `#[tool(name = "…", effect = "…")]`.

use proc_macro2::{Ident, Span};
use syn::meta::ParseNestedMeta;
use syn::parse::Parser as _;
use syn::{Error, LitStr, Result};

/// The attribute, read.
pub(crate) struct Attribute {
    /// The tool's name, where it is not the function's.
    pub(crate) name: Option<LitStr>,
    /// The variant of `Effect`.
    pub(crate) effect: Ident,
}

impl Attribute {
    pub(crate) fn parse(tokens: proc_macro2::TokenStream) -> Result<Self> {
        // What nobody said anything about must not be repeated.
        let mut this = Self { name: None, effect: Ident::new("AtMostOnce", Span::call_site()) };
        syn::meta::parser(|meta| this.field(&meta)).parse2(tokens)?;
        Ok(this)
    }

    fn field(&mut self, meta: &ParseNestedMeta<'_>) -> Result<()> {
        if meta.path.is_ident("name") {
            self.name = Some(name(meta.value()?.parse()?)?);
            return Ok(());
        }
        if meta.path.is_ident("effect") {
            let word: LitStr = meta.value()?.parse()?;
            self.effect = Ident::new(effect(&word)?, word.span());
            return Ok(());
        }
        Err(meta.error("a tool has `name = \"…\"` and `effect = \"…\"`, and nothing else"))
    }
}

fn effect(word: &LitStr) -> Result<&'static str> {
    match word.value().as_str() {
        "pure" => Ok("Pure"),
        "idempotent" => Ok("Idempotent"),
        "at_most_once" => Ok("AtMostOnce"),
        "compensatable" => Ok("Compensatable"),
        other => Err(Error::new(
            word.span(),
            format!("there is no effect '{other}': it is pure, idempotent, at_most_once or compensatable"),
        )),
    }
}

/// Providers take no other names.
fn name(word: LitStr) -> Result<LitStr> {
    let value = word.value();
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if (1..=64).contains(&value.len()) && value.chars().all(plain) {
        return Ok(word);
    }
    Err(Error::new(word.span(), "a tool's name has 1 to 64 ASCII letters, digits, `_` and `-`"))
}
