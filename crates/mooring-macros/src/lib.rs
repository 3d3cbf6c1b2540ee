//! The attribute `#[tool]`, re-exported as `mooring::tool` and described there.

mod attribute;
mod expand;

use proc_macro::TokenStream;

/// Makes a function a tool that a model can call. See `mooring::tool`.
#[proc_macro_attribute]
pub fn tool(attribute: TokenStream, item: TokenStream) -> TokenStream {
    expand::expand(attribute.into(), item.into()).unwrap_or_else(syn::Error::into_compile_error).into()
}
