//! `init`: makes a mesh, with this host as its first and you as its first operator.

use mesh_identity::key::random;
use mesh_model::admin::{Init, InitAnswer, Status};
use serde_json::json;

use super::Session;
use crate::{
    args::InitArgs,
    failure::{Exit, Failure},
    print::Put as _,
    sign, wait,
};

/// Makes a mesh.
pub(crate) async fn run(session: &Session, args: &InitArgs) -> Result<Exit, Failure> {
    let status: Status = session.client.get("/v1/status").await?;
    if let Some(mesh) = status.mesh {
        return Err(Failure::new(
            Exit::Finding,
            "already-joined",
            "meshd",
            format!("this host is in the mesh {} already", mesh.name),
            "`meshctl leave` first, if you mean it",
        ));
    }
    let home = session.home()?;
    let wish = wish(args)?;
    if args.change.dry_run {
        session.printer.show(&wish, |_| {
            format!(
                "would make the mesh {} with the trust domain {} and the operator {}\n",
                wish.mesh_name, wish.trust_domain, wish.operator
            )
        })?;
        return Ok(Exit::Done);
    }
    let public = match args.operator_key {
        Some(public) => public,
        None => sign::key_or_new(&home)?.0.public(),
    };
    let wish = Init {
        operator_key: sign::hex(&public),
        ..wish
    };
    let made: InitAnswer = session
        .client
        .change("/v1/init", &wish, &args.change.reason)
        .await?;
    let own = args.operator_key.is_none();
    if own {
        sign::keep_grant(&home, &made.mesh_id, &made.operator_grant)?;
    }
    if args.change.wait.is_some() {
        wait::phase(
            &session.client,
            &["running", "bypassed"],
            args.change.wait_timeout,
        )
        .await?;
    }
    let key = home.join("operator.key").display().to_string();
    let result = json!({"mesh_id": made.mesh_id, "host_id": made.host_id, "name": wish.mesh_name,
        "trust_domain": wish.trust_domain, "operator": wish.operator,
        "operator_key": own.then_some(&key)});
    session.printer.show(&result, |printer| {
        let ok = printer.mark("ok");
        let mut text = format!(
            "{ok} mesh {} ({}), trust domain {}\n{ok} this host is its first, and an authority\n",
            wish.mesh_name, made.mesh_id, wish.trust_domain
        );
        if own {
            writeln!(text, "{ok} operator {}: key in {key}", wish.operator);
        }
        text + NEXT
    })?;
    Ok(Exit::Done)
}

const NEXT: &str = "\nnext\n  \
    meshctl token create --authority > token   for a second host: at least two authorities\n  \
    meshctl backup --file mesh.backup          keep it somewhere safe: it restores this authority\n  \
    meshctl check                              what is missing\n";

fn wish(args: &InitArgs) -> Result<Init, Failure> {
    let leaf_ttl_secs = args.leaf_ttl.as_secs();
    if leaf_ttl_secs < 60 {
        return Err(Failure::usage(
            "--leaf-ttl",
            "less than a minute",
            "give at least 60s",
        ));
    }
    let mesh_name = args.name.clone().map_or_else(random_name, Ok)?;
    let trust_domain = args
        .trust_domain
        .clone()
        .unwrap_or_else(|| format!("{mesh_name}.internal"));
    Ok(Init {
        trust_domain,
        domain: args.domain.clone(),
        strict: args.strict,
        leaf_ttl_secs,
        operator: args.operator.clone().unwrap_or_else(user),
        operator_key: String::new(),
        mesh_name,
    })
}

fn random_name() -> Result<String, Failure> {
    let [a, b, c] = random::<3>().map_err(|error| {
        Failure::new(
            Exit::Finding,
            "no-randomness",
            "meshctl",
            error.to_string(),
            "try again",
        )
    })?;
    Ok(format!("mesh-{a:02x}{b:02x}{c:02x}"))
}

fn user() -> String {
    let uid = nix::unistd::Uid::effective();
    let known = nix::unistd::User::from_uid(uid).ok().flatten();
    known.map_or_else(|| format!("uid-{uid}"), |user| user.name)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{args::Arguments, args::Command, client::script::Script};

    fn args(line: &str) -> InitArgs {
        match Arguments::parse_from(line.split(' ')).command {
            Some(Command::Init(args)) => args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn names_follow_each_other() {
        let random = wish(&args("meshctl init")).unwrap();
        assert!(random.mesh_name.starts_with("mesh-"), "{random:?}");
        assert_eq!(
            random.trust_domain,
            format!("{}.internal", random.mesh_name)
        );
        assert_eq!(
            (random.domain.as_str(), random.leaf_ttl_secs),
            ("mesh.internal", 86_400)
        );
        let named = wish(&args(
            "meshctl init --name prod --trust-domain example.com --operator ann",
        ))
        .unwrap();
        assert_eq!(
            (
                named.mesh_name.as_str(),
                named.trust_domain.as_str(),
                named.operator.as_str()
            ),
            ("prod", "example.com", "ann")
        );
        assert!(wish(&args("meshctl init --leaf-ttl 59s")).is_err());
    }

    #[tokio::test]
    async fn a_refused_init_keeps_no_grant_and_a_made_one_does() {
        let home = tempfile::tempdir().unwrap();
        let idle = json!({"version": "0", "phase": "idle", "started_ms": 0, "mesh": null,
            "generation": 0, "capture": "off", "findings": [], "next": []})
        .to_string();
        let refusal = json!({"code": "not-permitted", "what": "no", "remedy": "sudo"}).to_string();
        let made =
            json!({"mesh_id": "ab", "host_id": "cd", "operator_grant": "Z3JhbnQ"}).to_string();
        let script = Script::start(vec![
            (200, idle.clone()),
            (403, refusal),
            (200, idle),
            (200, made),
        ]);
        let global =
            Arguments::parse_from(["meshctl", "--home", home.path().to_str().unwrap()]).global;
        let session = Session {
            client: script.client(),
            ..Session::new(global)
        };
        let args = args("meshctl init -o json");
        assert_eq!(
            run(&session, &args).await.unwrap_err().exit,
            Exit::NotPermitted
        );
        assert!(!home.path().join("ab.grant").exists());
        assert_eq!(run(&session, &args).await.unwrap(), Exit::Done);
        assert_eq!(
            std::fs::read_to_string(home.path().join("ab.grant")).unwrap(),
            "Z3JhbnQ"
        );
        let key = sign::key(home.path()).unwrap().unwrap();
        assert!(script.seen()[3].contains(&sign::hex(&key.public())));
    }
}
