//! Who the leader is, and what a leader may say.

use super::*;

fn ports(members: &[(&str, &str)]) -> Option<Vec<String>> {
    let members: Members = members
        .iter()
        .map(|(name, data)| (Arc::from(*name), member(name, data.as_bytes()).ok()))
        .collect();
    let sets = Elections.sets(&members)?;
    Some(
        sets[&None]
            .iter()
            .map(|one| one.address.to_string())
            .collect(),
    )
}

#[test]
fn the_lowest_number_leads() {
    let all = [
        ("member_0000000010", "10.0.0.1:10"),
        ("member_0000000009", "10.0.0.1:9,[::1]:9"),
    ];
    assert_eq!(ports(&all).unwrap(), ["10.0.0.1:9", "[::1]:9"]);
    let latches = [
        ("_c_b1-latch-0000000002", "a.example:2"),
        ("_c_z9-latch-0000000001", "b.example:1"),
    ];
    assert_eq!(
        ports(&latches).unwrap(),
        ["b.example:1"],
        "by number, not by name"
    );
    let broken = [
        ("member_0000000001", "?"),
        ("member_0000000002", "10.0.0.1:2"),
    ];
    assert_eq!(ports(&broken), None, "the next one is not the leader");
}

#[test]
fn what_is_a_member() {
    assert_eq!(Elections.kind(1, "member_0000000001"), Kind::Member);
    assert_eq!(Elections.kind(1, "db"), Kind::Inner);
    assert_eq!(Elections.kind(1, "übergröße"), Kind::Inner);
    for text in ["", " , ", "10.0.0.1", "10.0.0.1:0", "a b:1", "10.0.0.1:1,?"] {
        assert!(member("m", text.as_bytes()).is_err(), "{text}");
    }
    assert!(member("m", &[0xff]).is_err());
    assert!(member("m", "a:1,".repeat(65).as_bytes()).is_err());
}
