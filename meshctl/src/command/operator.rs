//! `operator`: who may change the mesh, and the key of the person who types.

use mesh_model::{
    admin::{AddOperator, Operator},
    catalog::ResourceKey,
    time::rfc3339,
};
use serde_json::json;

use super::Session;
use crate::{
    args::{OperatorAdd, OperatorRevoke},
    edit::Wish,
    failure::{Exit, Failure},
    print::Table,
    resource, sign, time,
};

/// Prints the public key; makes the key when there is none.
pub(crate) fn key(session: &Session) -> Result<Exit, Failure> {
    let home = session.home()?;
    let (key, made) = sign::key_or_new(&home)?;
    let public = sign::hex(&key.public());
    session
        .printer
        .show(&json!({"key": public, "made": made}), |_| {
            format!("{public}\n")
        })?;
    if session.printer.is_table() {
        let place = home.join("operator.key");
        if made {
            crate::print::note(&format!("made a key: {}", place.display()));
        }
        crate::print::note(&format!(
            "give it rights: meshctl operator add NAME --key {public}"
        ));
    }
    Ok(Exit::Done)
}

/// Gives a key rights.
pub(crate) async fn add(session: &Session, args: &OperatorAdd) -> Result<Exit, Failure> {
    let wish = AddOperator {
        name: args.name.clone(),
        key: sign::hex(&args.key),
        namespaces: args.namespaces.clone(),
        ttl_secs: args.ttl.as_secs(),
    };
    if args.change.dry_run {
        session.printer.show(&wish, |_| {
            format!(
                "would let {} change the namespaces {}\n",
                wish.name,
                wish.namespaces.join(", ")
            )
        })?;
        return Ok(Exit::Done);
    }
    let made: Operator = session
        .client
        .change("/v1/operator", &wish, &args.change.reason)
        .await?;
    session.printer.show(&made, |printer| {
        format!(
            "{} {} may change {} until {}\n",
            printer.mark("ok"),
            made.name,
            made.namespaces.join(", "),
            rfc3339(made.not_after_ms)
        )
    })?;
    Ok(Exit::Done)
}

/// Shows who may change the mesh.
pub(crate) async fn list(session: &Session) -> Result<Exit, Failure> {
    let operators: Vec<Operator> = session.client.get("/v1/operators").await?;
    session.printer.show(&operators, |_| {
        let now_ms = time::now_ms();
        let mut table = Table::new(&["NAME", "NAMESPACES", "EXPIRES", "STATE", "KEY"]);
        for operator in &operators {
            let state = match (operator.revoked, operator.not_after_ms < now_ms) {
                (true, _) => "revoked",
                (false, true) => "expired",
                (false, false) => "valid",
            };
            table.row(vec![
                operator.name.clone(),
                operator.namespaces.join(","),
                time::until(operator.not_after_ms, now_ms),
                state.to_owned(),
                operator.key.clone(),
            ]);
        }
        table.render("no operators")
    })?;
    Ok(Exit::Done)
}

/// Takes a right back: a commit of a Revocation.
pub(crate) async fn revoke(session: &Session, args: &OperatorRevoke) -> Result<Exit, Failure> {
    let operators: Vec<Operator> = session.client.get("/v1/operators").await?;
    let key = find(&operators, &args.operator)?;
    let name = format!("operator-{}", key.chars().take(16).collect::<String>());
    let document = json!({"apiVersion": "meshd.io/v1alpha1", "kind": "Revocation",
        "metadata": {"name": name}, "spec": {"operatorKey": key}});
    let resource = ResourceKey {
        kind: "Revocation".into(),
        namespace: String::new(),
        name,
    };
    let current = resource::find(&session.client, &resource).await?;
    let editor = session.editor(&args.edit)?;
    match current {
        Some(row) if resource::same(&row.document, &document) => {
            editor.commit(&[], &[resource]).await
        }
        row => {
            editor
                .commit(&[Wish::put(resource, &document, row.as_ref())], &[])
                .await
        }
    }
}

fn find(operators: &[Operator], wanted: &str) -> Result<String, Failure> {
    let fits = |operator: &&Operator| {
        !operator.revoked && (operator.name == wanted || operator.key.eq_ignore_ascii_case(wanted))
    };
    let mut found = operators.iter().filter(fits);
    match (found.next(), found.next()) {
        (Some(one), None) => Ok(one.key.to_ascii_lowercase()),
        (Some(_), Some(_)) => Err(Failure::new(
            Exit::Usage,
            "ambiguous",
            wanted,
            "several operators have this name",
            "give the key, from `meshctl operator list`",
        )),
        (None, _) => Err(Failure::new(
            Exit::Finding,
            "not-found",
            wanted,
            "there is no such operator with a right to lose",
            "see `meshctl operator list`",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn operator(name: &str, key: &str, revoked: bool) -> Operator {
        Operator {
            name: name.into(),
            key: key.into(),
            namespaces: vec!["*".into()],
            not_after_ms: 0,
            revoked,
            grant: String::new(),
        }
    }

    #[test]
    fn by_name_or_key_and_never_by_guess() {
        let all = [
            operator("ann", "aa", false),
            operator("bob", "bb", false),
            operator("bob", "b2", false),
            operator("eve", "ee", true),
        ];
        assert_eq!(find(&all, "ann").unwrap(), "aa");
        assert_eq!(find(&all, "BB").unwrap(), "bb");
        assert_eq!(find(&all, "bob").unwrap_err().code, "ambiguous");
        assert_eq!(find(&all, "eve").unwrap_err().code, "not-found");
    }
}
