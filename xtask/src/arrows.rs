//! Which crate of the workspace may depend on which: the table behind `ARCHITECTURE.md`.

use anyhow::Context;
use serde::Deserialize;
use std::collections::BTreeSet;

/// What a crate may depend on.
struct Rule {
    package: &'static str,
    /// Workspace crates it may name in `[dependencies]` and `[build-dependencies]`.
    allowed: &'static [&'static str],
    /// Whether it may talk to a person: argument parsing, progress bars, colours, signals.
    terminal: bool,
}

const RULES: &[Rule] = &[
    Rule { package: "fisao-cuda", allowed: &[], terminal: false },
    Rule { package: "fisao-kernels", allowed: &[], terminal: false },
    Rule { package: "fisao-images", allowed: &[], terminal: false },
    Rule {
        package: "fisao-models",
        allowed: &["fisao-cuda", "fisao-images", "fisao-kernels"],
        terminal: false,
    },
    Rule { package: "fisao-mentions", allowed: &[], terminal: false },
    Rule { package: "fisao-formats", allowed: &["fisao-images", "fisao-models"], terminal: false },
    Rule {
        package: "fisao-verifier",
        allowed: &["fisao-mentions", "fisao-models"],
        terminal: false,
    },
    Rule { package: "fisao-align", allowed: &["fisao-models", "fisao-verifier"], terminal: false },
    Rule { package: "fisao-eval", allowed: &["fisao-mentions"], terminal: false },
    Rule { package: "fisao-report", allowed: &["fisao-eval", "fisao-verifier"], terminal: false },
    Rule { package: "fisao-theory", allowed: &[], terminal: false },
    Rule { package: "fisao-scenes", allowed: &["fisao-models"], terminal: false },
    Rule { package: "fisao-demo-clip", allowed: &[], terminal: false },
    Rule { package: "fisao-demo-llava", allowed: &[], terminal: false },
    Rule { package: "fisao-demo-llava-hard", allowed: &[], terminal: false },
    Rule {
        package: "fisao-runs",
        allowed: &[
            "fisao-align",
            "fisao-cuda",
            "fisao-demo-clip",
            "fisao-demo-llava",
            "fisao-demo-llava-hard",
            "fisao-eval",
            "fisao-formats",
            "fisao-models",
            "fisao-report",
            "fisao-scenes",
            "fisao-verifier",
        ],
        terminal: false,
    },
    Rule {
        package: "fisao-experiments",
        allowed: &[
            "fisao-align",
            "fisao-eval",
            "fisao-formats",
            "fisao-models",
            "fisao-report",
            "fisao-runs",
            "fisao-scenes",
            "fisao-theory",
            "fisao-verifier",
        ],
        terminal: false,
    },
    Rule {
        package: "fisao-serve",
        allowed: &["fisao-align", "fisao-formats", "fisao-models", "fisao-runs", "fisao-verifier"],
        terminal: false,
    },
    Rule {
        package: "fisao",
        allowed: &[
            "fisao-align",
            "fisao-eval",
            "fisao-experiments",
            "fisao-formats",
            "fisao-models",
            "fisao-report",
            "fisao-runs",
            "fisao-scenes",
            "fisao-serve",
            "fisao-verifier",
        ],
        terminal: true,
    },
    Rule {
        package: TESTKIT,
        allowed: &[
            "fisao-align",
            "fisao-eval",
            "fisao-formats",
            "fisao-models",
            "fisao-scenes",
            "fisao-verifier",
        ],
        terminal: true,
    },
    Rule { package: "xtask", allowed: &[], terminal: true },
];

/// The crate that every other one may use, in tests only.
const TESTKIT: &str = "fisao-testkit";

/// Crates that another one's tests compare it with.
const COMPARED: &[(&str, &str)] = &[("fisao-cuda", "fisao-models")];

/// Crates that address a person at a terminal; a library that needs one is in the wrong place.
const TERMINAL_CRATES: &[&str] = &["anstream", "clap", "ctrlc", "indicatif", "owo-colors"];

/// Crates whose top-level modules form no cycle: all that are not for tests.
pub(crate) fn layered() -> impl Iterator<Item = &'static str> {
    let for_tests = [TESTKIT, "xtask"];
    RULES.iter().map(|rule| rule.package).filter(move |package| !for_tests.contains(package))
}

/// A workspace member as `cargo metadata` describes it.
#[derive(Debug, Deserialize)]
pub(crate) struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug, Deserialize)]
struct Dependency {
    name: String,
    /// `None` for an ordinary dependency, else `dev` or `build`.
    kind: Option<String>,
}

/// Reads the output of `cargo metadata --no-deps --format-version 1`.
pub(crate) fn parse_metadata(json: &[u8]) -> anyhow::Result<Vec<Package>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    let metadata: Metadata =
        serde_json::from_slice(json).context("`cargo metadata` wrote something unexpected")?;
    Ok(metadata.packages)
}

/// One sentence for each dependency that the table does not allow.
pub(crate) fn violations(packages: &[Package]) -> Vec<String> {
    let ours: BTreeSet<&str> = packages.iter().map(|package| package.name.as_str()).collect();
    let mut found = Vec::new();
    for package in packages {
        let Some(rule) = RULES.iter().find(|rule| rule.package == package.name) else {
            found.push(format!(
                "crate `{}` has no rule: say in xtask/src/arrows.rs and ARCHITECTURE.md what it \
                 may depend on",
                package.name
            ));
            continue;
        };
        for dependency in &package.dependencies {
            found.extend(violation(rule, dependency, &ours));
        }
    }
    found
}

fn violation(rule: &Rule, dependency: &Dependency, ours: &BTreeSet<&str>) -> Option<String> {
    let (from, to) = (rule.package, dependency.name.as_str());
    let for_tests = dependency.kind.as_deref() == Some("dev");
    if ours.contains(to) {
        let in_tests = to == TESTKIT || COMPARED.contains(&(from, to));
        if rule.allowed.contains(&to) || (for_tests && in_tests) {
            return None;
        }
        if to == TESTKIT {
            return Some(format!("`{from}` → `{to}`: it belongs under [dev-dependencies]"));
        }
        let allowed = if rule.allowed.is_empty() {
            "no other crate of the workspace".to_owned()
        } else {
            rule.allowed.join(", ")
        };
        return Some(format!("`{from}` → `{to}` is not allowed: `{from}` may use {allowed}"));
    }
    if TERMINAL_CRATES.contains(&to) && !rule.terminal && !for_tests {
        return Some(format!(
            "`{from}` → `{to}` is not allowed: libraries do not talk to a terminal, the binary does"
        ));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::{parse_metadata, violations};

    fn violations_of(json: &str) -> Vec<String> {
        violations(&parse_metadata(json.as_bytes()).expect("the test's metadata is well-formed"))
    }

    #[test]
    fn allowed_dependencies_pass() {
        let found = violations_of(
            r#"{"packages": [
                {"name": "fisao-models", "dependencies": [{"name": "burn", "kind": null}]},
                {"name": "fisao-formats", "dependencies": [{"name": "fisao-models", "kind": null}]},
                {"name": "fisao", "dependencies": [{"name": "clap", "kind": null},
                                                   {"name": "fisao-formats", "kind": null}]}
            ]}"#,
        );
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn forbidden_dependency_is_reported_with_the_allowed_ones() {
        let found = violations_of(
            r#"{"packages": [
                {"name": "fisao-models", "dependencies": []},
                {"name": "fisao-formats", "dependencies": []},
                {"name": "fisao-align", "dependencies": [{"name": "fisao-formats", "kind": null}]}
            ]}"#,
        );
        assert_eq!(
            found,
            ["`fisao-align` → `fisao-formats` is not allowed: `fisao-align` may use \
              fisao-models, fisao-verifier"]
        );
    }

    #[test]
    fn dev_and_build_dependencies_are_checked() {
        for kind in ["dev", "build"] {
            let found = violations_of(&format!(
                r#"{{"packages": [
                    {{"name": "fisao-models", "dependencies": []}},
                    {{"name": "fisao-eval",
                      "dependencies": [{{"name": "fisao-models", "kind": "{kind}"}}]}}
                ]}}"#
            ));
            assert_eq!(found.len(), 1, "a {kind} dependency went unnoticed");
        }
    }

    #[test]
    fn testkit_is_allowed_as_dev_dependency_only() {
        let with_kind = |kind: &str| {
            violations_of(&format!(
                r#"{{"packages": [
                    {{"name": "fisao-testkit", "dependencies": []}},
                    {{"name": "fisao-eval",
                      "dependencies": [{{"name": "fisao-testkit", "kind": {kind}}}]}}
                ]}}"#
            ))
        };
        assert_eq!(with_kind(r#""dev""#).len(), 0);
        assert_eq!(with_kind("null").len(), 1);
    }

    #[test]
    fn compared_crate_is_allowed_as_dev_dependency_only() {
        let with_kind = |kind: &str| {
            violations_of(&format!(
                r#"{{"packages": [
                    {{"name": "fisao-models", "dependencies": []}},
                    {{"name": "fisao-cuda",
                      "dependencies": [{{"name": "fisao-models", "kind": {kind}}}]}}
                ]}}"#
            ))
        };
        assert_eq!(with_kind(r#""dev""#).len(), 0);
        assert_eq!(with_kind("null").len(), 1);
    }

    #[test]
    fn libraries_may_not_depend_on_terminal_crates() {
        let found = violations_of(
            r#"{"packages": [
                {"name": "fisao-align", "dependencies": [{"name": "indicatif", "kind": null}]}
            ]}"#,
        );
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("indicatif"), "{}", found[0]);
    }

    #[test]
    fn crate_without_a_rule_is_rejected() {
        let found = violations_of(r#"{"packages": [{"name": "fisao-utils", "dependencies": []}]}"#);
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("fisao-utils"), "{}", found[0]);
    }
}
