//! `cargo xtask settings`: what `fisao config` knows about each setting, from the doc comments of the configuration's types.
//!
//! A setting is declared once, in the type that reads it; this table repeats its words where the program can print them. The check
//! fails when the two differ.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde::Serialize;
use syn::{Attribute, Expr, Fields, Item, Lit, Meta, Type};

/// Where the table lies in the workspace.
const TABLE: &str = "crates/fisao-runs/src/settings_reference.json";
/// Crates whose types are looked at.
const CRATES: [&str; 4] = ["fisao-align", "fisao-kernels", "fisao-models", "fisao-verifier"];
/// The configuration as a whole.
const ROOT: &str = "AlignConfig";

/// A setting.
#[derive(Debug, Serialize)]
struct Setting {
    key: String,
    /// The setting that another one must have for this one to exist, as `key = value`.
    #[serde(skip_serializing_if = "Option::is_none")]
    when: Option<String>,
    /// What is written for it.
    kind: String,
    /// Words that it may be, with what each means.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    values: Vec<Word>,
    /// Whether it may be absent.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    optional: bool,
    doc: String,
}

#[derive(Debug, Serialize)]
struct Word {
    name: String,
    doc: String,
}

/// Types by name.
type Types = BTreeMap<String, Item>;

/// Writes the table anew.
pub(crate) fn write(root: &Path) -> anyhow::Result<()> {
    let path = root.join(TABLE);
    fs::write(&path, table(root)?).with_context(|| format!("{} cannot be written", path.display()))
}

fn table(root: &Path) -> anyhow::Result<String> {
    let mut types = Types::new();
    for package in CRATES {
        collect(&root.join("crates").join(package).join("src"), &mut types)?;
    }
    let mut settings = Vec::new();
    let item = types.get(ROOT).with_context(|| format!("no type `{ROOT}`"))?;
    let Item::Struct(config) = item else { bail!("`{ROOT}` is no struct") };
    fields(&config.fields, "", None, &types, &mut settings)?;
    Ok(serde_json::to_string_pretty(&settings)? + "\n")
}

fn collect(folder: &Path, types: &mut Types) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            collect(&path, types)?;
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            let text = fs::read_to_string(&path)?;
            let file = syn::parse_file(&text).with_context(|| path.display().to_string())?;
            for item in file.items {
                match &item {
                    Item::Struct(found) => types.insert(found.ident.to_string(), item.clone()),
                    Item::Enum(found) => types.insert(found.ident.to_string(), item.clone()),
                    _ => None,
                };
            }
        }
    }
    Ok(())
}

/// Settings of the named fields of a struct or variant.
fn fields(
    all: &Fields,
    prefix: &str,
    when: Option<&str>,
    types: &Types,
    settings: &mut Vec<Setting>,
) -> anyhow::Result<()> {
    for field in all {
        let name = field.ident.as_ref().context("a setting without a name")?;
        let key = format!("{prefix}{}", kebab(&name.to_string()));
        setting(&key, when, &field.ty, doc(&field.attrs), types, settings)
            .with_context(|| format!("`{key}`"))?;
    }
    Ok(())
}

fn setting(
    key: &str,
    when: Option<&str>,
    of: &Type,
    doc: String,
    types: &Types,
    settings: &mut Vec<Setting>,
) -> anyhow::Result<()> {
    let (name, inner) = named(of)?;
    if name == "Option" {
        let first = settings.len();
        let inner = inner.context("an Option of nothing")?;
        setting(key, when, &inner, doc, types, settings)?;
        settings[first..].iter_mut().for_each(|setting| setting.optional = true);
        return Ok(());
    }
    if name == "Vec" {
        let inner = inner.context("a Vec of nothing")?;
        let (entry, _) = named(&inner)?;
        if types.contains_key(&entry) {
            return setting(&format!("{key}[]"), when, &inner, doc, types, settings);
        }
    }
    let plain = |kind: &str, values: Vec<Word>| Setting {
        key: key.to_owned(),
        when: when.map(str::to_owned),
        kind: kind.to_owned(),
        values,
        optional: false,
        doc: doc.clone(),
    };
    match types.get(&name) {
        Some(Item::Struct(found)) => {
            fields(&found.fields, &format!("{key}."), when, types, settings)
        }
        Some(Item::Enum(found)) if is_tagged(&found.attrs) => {
            let kind = format!("{key}.kind");
            let word = |variant: &syn::Variant| Word {
                name: kebab(&variant.ident.to_string()),
                doc: self::doc(&variant.attrs),
            };
            let values = found.variants.iter().map(word).collect();
            settings.push(Setting { key: kind.clone(), ..plain("word", values) });
            for variant in &found.variants {
                let when = format!("{kind} = \"{}\"", kebab(&variant.ident.to_string()));
                let prefix = format!("{key}.");
                match &variant.fields {
                    Fields::Unnamed(inner) => {
                        let (name, _) = named(&inner.unnamed[0].ty)?;
                        let Some(Item::Struct(inner)) = types.get(&name) else {
                            bail!("`{name}` is no struct")
                        };
                        fields(&inner.fields, &prefix, Some(&when), types, settings)?;
                    }
                    named => fields(named, &prefix, Some(&when), types, settings)?,
                }
            }
            Ok(())
        }
        Some(Item::Enum(found)) if found.variants.iter().all(|one| one.fields.is_empty()) => {
            let word = |variant: &syn::Variant| Word {
                name: kebab(&variant.ident.to_string()),
                doc: self::doc(&variant.attrs),
            };
            let values = found.variants.iter().map(word).collect();
            settings.push(plain("word", values));
            Ok(())
        }
        Some(_) => {
            settings.push(plain("number or word", Vec::new()));
            Ok(())
        }
        None => {
            let kind = match name.as_str() {
                "usize" | "u64" | "u32" | "i64" => "whole number",
                "f64" | "f32" => "number",
                "bool" => "true or false",
                "String" => "text",
                "Vec" => "list of texts",
                other => bail!("the type `{other}` has no description"),
            };
            settings.push(plain(kind, Vec::new()));
            Ok(())
        }
    }
}

/// Last part of a type's path, and the type between its angle brackets.
fn named(of: &Type) -> anyhow::Result<(String, Option<Type>)> {
    let Type::Path(path) = of else { bail!("a setting's type is no name") };
    let last = path.path.segments.last().context("a type without a name")?;
    let inner = match &last.arguments {
        syn::PathArguments::AngleBracketed(arguments) => match arguments.args.first() {
            Some(syn::GenericArgument::Type(inner)) => Some(inner.clone()),
            _ => None,
        },
        _ => None,
    };
    Ok((last.ident.to_string(), inner))
}

/// Whether an enum is told apart by its `kind`.
fn is_tagged(attributes: &[Attribute]) -> bool {
    let mut tagged = false;
    for attribute in attributes.iter().filter(|one| one.path().is_ident("serde")) {
        let _ = attribute.parse_nested_meta(|meta| {
            tagged |= meta.path.is_ident("tag");
            if meta.input.peek(syn::Token![=]) {
                let _: Expr = meta.value()?.parse()?;
            } else if meta.input.peek(syn::token::Paren) {
                let content;
                syn::parenthesized!(content in meta.input);
                let _: proc_macro2::TokenStream = content.parse()?;
            }
            Ok(())
        });
    }
    tagged
}

/// A doc comment as running text, its links as their words.
fn doc(attributes: &[Attribute]) -> String {
    let mut text = String::new();
    for attribute in attributes.iter().filter(|one| one.path().is_ident("doc")) {
        if let Meta::NameValue(line) = &attribute.meta
            && let Expr::Lit(literal) = &line.value
            && let Lit::Str(line) = &literal.lit
        {
            text.push_str(line.value().trim());
            text.push(' ');
        }
    }
    without_links(text.trim())
}

/// `` [`name`](path) `` and `` [`name`] `` become `name`.
fn without_links(text: &str) -> String {
    let mut plain = String::new();
    let mut rest = text;
    while let Some(start) = rest.find("[`") {
        plain.push_str(&rest[..start]);
        let Some(end) = rest[start..].find("`]") else { break };
        plain.push_str(&rest[start + 2..start + end]);
        rest = &rest[start + end + 2..];
        if let Some(path) = rest.strip_prefix('(').and_then(|path| path.split_once(')')) {
            rest = path.1;
        }
    }
    plain + rest
}

/// `GroupRelative` and `group_relative` become `group-relative`.
fn kebab(name: &str) -> String {
    let mut kebab = String::new();
    for (at, character) in name.char_indices() {
        if character.is_ascii_uppercase() && at > 0 {
            kebab.push('-');
        }
        kebab.push(if character == '_' { '-' } else { character.to_ascii_lowercase() });
    }
    kebab
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_converted_to_kebab_case() {
        assert_eq!(kebab("GroupRelative"), "group-relative");
        assert_eq!(kebab("min_length_ratio"), "min-length-ratio");
    }

    #[test]
    fn doc_links_are_replaced_by_their_text() {
        assert_eq!(without_links("see [`a`](b::c), [`d`] and e"), "see a, d and e");
    }

    #[test]
    fn settings_table_of_the_workspace_is_current() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
        let known = fs::read_to_string(root.join(TABLE)).expect("the table");
        assert!(known == table(root).expect("readable sources"), "run `cargo xtask settings`");
    }
}
