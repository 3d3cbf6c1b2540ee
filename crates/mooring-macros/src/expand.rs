//! From a function to a type that implements `Tool`.
//!
//! The type has the function's name, so that it is given to an agent as the function would be. Its arguments become a
//! structure that `serde` reads and `schemars` describes; all paths go through `mooring`, so that a program needs
//! neither.

use proc_macro2::TokenStream;
use quote::{format_ident, quote};
use syn::{
    Attribute as SynAttribute, Error, Expr, FnArg, Ident, ItemFn, Lit, Meta, Pat, PatType, Result, Type,
};

use crate::attribute::Attribute;

/// An argument of the function.
#[expect(clippy::large_enum_variant, reason = "a few of them live for as long as one function is expanded")]
enum Argument {
    /// `&ToolContext`: not the model's.
    Context,
    /// One that the model gives.
    Given { name: Ident, ty: Type, attributes: Vec<SynAttribute> },
}

pub(crate) fn expand(attribute: TokenStream, item: TokenStream) -> Result<TokenStream> {
    let attribute = Attribute::parse(attribute)?;
    let mut function: ItemFn = syn::parse2(item)?;
    refuse(&function)?;
    let mut arguments = Vec::new();
    for input in &mut function.sig.inputs {
        arguments.push(argument(input)?);
    }
    let description = text(&function.attrs);
    if description.is_empty() {
        let reason = "a tool needs a doc comment: it is what the model reads to know what the tool is for";
        return Err(Error::new(function.sig.ident.span(), reason));
    }

    let ItemFn { attrs, vis, sig, block } = function;
    let name = &sig.ident;
    let (asyncness, inputs, output) = (&sig.asyncness, &sig.inputs, &sig.output);
    let waits = asyncness.map(|_| quote!(.await));
    let tool_name = attribute.name.map_or_else(|| name.to_string(), |name| name.value());
    let effect = attribute.effect;
    let fields = arguments.iter().filter_map(|argument| match argument {
        Argument::Context => None,
        Argument::Given { name, ty, attributes } => Some(quote!(#(#attributes)* #name: #ty)),
    });
    let passed = arguments.iter().map(|argument| match argument {
        Argument::Context => quote!(__context),
        Argument::Given { name, .. } => quote!(__arguments.#name),
    });
    let invoke = format_ident!("invoke", span = name.span());
    Ok(quote! {
        #(#attrs)*
        #[allow(non_camel_case_types)]
        #[derive(Debug, Clone, Copy)]
        #vis struct #name;

        impl #name {
            /// The function itself.
            #[allow(clippy::unused_async, clippy::too_many_arguments)]
            #vis #asyncness fn #invoke(#inputs) #output #block
        }

        const _: () = {
            #[derive(::mooring::__private::serde::Deserialize, ::mooring::__private::schemars::JsonSchema)]
            #[serde(crate = "::mooring::__private::serde", deny_unknown_fields)]
            #[schemars(crate = "::mooring::__private::schemars")]
            struct __Arguments {
                #(#fields,)*
            }

            impl ::mooring::Tool for #name {
                fn spec(&self) -> ::mooring::ToolSpec {
                    ::mooring::__private::spec::<__Arguments>(#tool_name, #description)
                }

                fn effect(&self) -> ::mooring::Effect {
                    ::mooring::Effect::#effect
                }

                // It runs in the program, not in the sandbox.
                fn leaves_sandbox(&self) -> bool {
                    true
                }

                fn call<'a>(
                    &'a self,
                    __context: &'a ::mooring::ToolContext,
                    __input: &'a ::mooring::ToolInput,
                    _: &'a ::mooring::__private::Value,
                ) -> ::mooring::__private::BoxFuture<'a, ::mooring::ToolResult> {
                    ::std::boxed::Box::pin(async move {
                        #[allow(unused_variables)]
                        let __arguments: __Arguments =
                            match ::mooring::__private::arguments(#tool_name, __input) {
                                ::std::result::Result::Ok(arguments) => arguments,
                                ::std::result::Result::Err(refused) => return refused,
                            };
                        ::mooring::IntoToolResult::into_tool_result(#name::#invoke(#(#passed),*) #waits)
                    })
                }
            }
        };
    })
}

fn refuse(function: &ItemFn) -> Result<()> {
    let sig = &function.sig;
    let refused = |place: &dyn quote::ToTokens, reason: &str| Err(Error::new_spanned(place, reason));
    if !sig.generics.params.is_empty() {
        return refused(&sig.generics, "a tool cannot be generic: its arguments' schema must be known");
    }
    if let Some(token) = &sig.unsafety {
        return refused(token, "a tool cannot be unsafe: a model calls it with anything");
    }
    if let Some(receiver) = sig.receiver() {
        return refused(
            receiver,
            "a tool is a function without `self`; implement `Tool` for one that has state",
        );
    }
    Ok(())
}

/// An argument; what is meant for its schema is taken out of the function, where it could not stand.
fn argument(input: &mut FnArg) -> Result<Argument> {
    let FnArg::Typed(PatType { attrs, pat, ty, .. }) = input else {
        return Err(Error::new_spanned(input, "a tool is a function without `self`"));
    };
    if let Type::Reference(reference) = &**ty {
        let context = matches!(&*reference.elem, Type::Path(path)
            if path.path.segments.last().is_some_and(|last| last.ident == "ToolContext"));
        return if context {
            Ok(Argument::Context)
        } else {
            Err(Error::new_spanned(
                ty,
                "an argument of a tool is owned: it comes from the model. Only `&ToolContext` is lent",
            ))
        };
    }
    let Pat::Ident(ident) = &**pat else {
        return Err(Error::new_spanned(
            pat,
            "an argument of a tool is a plain name: the model calls it by that",
        ));
    };
    Ok(Argument::Given { name: ident.ident.clone(), ty: (**ty).clone(), attributes: std::mem::take(attrs) })
}

/// The text of doc comments.
fn text(attributes: &[SynAttribute]) -> String {
    let line = |attribute: &SynAttribute| match &attribute.meta {
        Meta::NameValue(meta) if meta.path.is_ident("doc") => match &meta.value {
            Expr::Lit(value) => match &value.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    };
    let lines: Vec<String> = attributes.iter().filter_map(line).collect();
    lines
        .iter()
        .map(|line| line.strip_prefix(' ').unwrap_or(line))
        .collect::<Vec<_>>()
        .join("\n")
        .trim()
        .to_owned()
}
