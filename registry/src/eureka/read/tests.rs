//! Answers in each of the forms that servers write.

use serde::de::DeserializeSeed;

use super::*;

fn read(text: &str, secure: bool) -> Result<Answered, String> {
    read_bytes(text.as_bytes(), secure)
}

fn read_bytes(text: &[u8], secure: bool) -> Result<Answered, String> {
    let mut document = serde_json::Deserializer::from_slice(text);
    let answered = Reader::new(secure).deserialize(&mut document);
    let answered = answered.map_err(|error| error.to_string())?;
    document.end().map_err(|error| error.to_string())?;
    Ok(answered)
}

/// What a real server answered, with one more instance of a second application.
pub(crate) const REAL: &str = r#"{"applications":{"versions__delta":"1","apps__hashcode":"DOWN_1_UP_1_","application":[{"name":"WEB","instance":[{"instanceId":"web-1","hostName":"10.0.0.1","app":"WEB","ipAddr":"10.0.0.1","status":"UP","overriddenStatus":"UNKNOWN","port":{"$":8080,"@enabled":"true"},"securePort":{"$":8443,"@enabled":"true"},"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":30,"durationInSecs":90,"registrationTimestamp":1795277174765,"lastRenewalTimestamp":1795277174765,"evictionTimestamp":0,"serviceUpTimestamp":1795277174765},"metadata":{"zone":"a"},"vipAddress":"Web,shop","isCoordinatingDiscoveryServer":"false","lastUpdatedTimestamp":"1795277174765","lastDirtyTimestamp":"1795277174723","actionType":"ADDED"}]},{"name":"MY_APP","instance":[{"instanceId":"h:my_app:80","hostName":"fd00::1","app":"MY_APP","ipAddr":"fd00::1","status":"DOWN","overriddenStatus":"UNKNOWN","port":{"$":8080,"@enabled":"false"},"securePort":{"$":8443,"@enabled":"true"},"countryId":1,"dataCenterInfo":{"@class":"com.netflix.appinfo.InstanceInfo$DefaultDataCenterInfo","name":"MyOwn"},"leaseInfo":{"renewalIntervalInSecs":1,"durationInSecs":3},"metadata":{"@class":"java.util.Collections$EmptyMap"},"isCoordinatingDiscoveryServer":"false","actionType":"ADDED"}]}]}}"#;

/// An older server, at Amazon: single objects for lists, numbers as text, no ids.
const OLD: &str = r#"{"applications":{"versions__delta":1,"apps__hashcode":"OUT_OF_SERVICE_1_","application":{"name":"API","instance":{"hostName":"ec2-1.example.com","app":"API","ipAddr":"not an address","status":"UP","overriddenstatus":"OUT_OF_SERVICE","port":{"@enabled":true,"$":"7001"},"securePort":{"@enabled":false,"$":"7002"},"dataCenterInfo":{"@class":"com.netflix.appinfo.AmazonInfo","name":"Amazon","metadata":{"availability-zone":"us-east-1c","instance-id":"i-1","ami-id":null}},"metadata":{"@class":"java.util.Collections$EmptyMap","weight":5},"secureVipAddress":"api-secure","vipAddress":"api"}}}}"#;

#[test]
fn what_a_real_server_answers() {
    let answered = read(REAL, false).unwrap();
    assert_eq!(answered.hash.as_deref(), Some("DOWN_1_UP_1_"));
    assert_eq!((answered.told.len(), answered.skipped), (2, 0));
    let (web, other) = (&answered.told[0], &answered.told[1]);
    assert_eq!((&*web.app, &*web.id), ("web", "web-1"));
    let one = web.instance.as_ref().unwrap();
    assert_eq!(one.address.as_ref().unwrap().to_string(), "10.0.0.1:8080");
    assert_eq!(one.health, Health::Healthy);
    assert_eq!(one.metadata["zone"], "a");
    assert_eq!(one.virtual_names.as_deref(), Some("web,shop"));
    let place = one.locality.as_ref().unwrap();
    assert_eq!(place.zone.as_deref(), Some("a"));
    let one = other.instance.as_ref().unwrap();
    assert_eq!(
        one.address.as_ref().unwrap().to_string(),
        "[fd00::1]:8443",
        "the only port"
    );
    assert_eq!(one.health, Health::Unhealthy);
    assert!(one.metadata.is_empty(), "no classes of Java");
    let secure = read(REAL, true).unwrap();
    let one = secure.told[0].instance.as_ref().unwrap();
    assert_eq!(one.address.as_ref().unwrap().to_string(), "10.0.0.1:8443");
}

#[test]
fn what_older_servers_answer() {
    let answered = read(OLD, true).unwrap();
    let told = &answered.told[0];
    assert_eq!(&*told.id, "i-1", "the machine's id");
    let one = told.instance.as_ref().unwrap();
    assert_eq!(one.status, Status::Up, "counted as it is");
    assert_eq!(one.health, Health::Draining, "used as it is overridden");
    assert_eq!(
        one.address.as_ref().unwrap().to_string(),
        "ec2-1.example.com:7001"
    );
    assert_eq!(
        one.locality.as_ref().unwrap().zone.as_deref(),
        Some("us-east-1c")
    );
    assert_eq!(one.weight, 5);
    assert_eq!(one.virtual_names.as_deref(), Some("api-secure"));
}

#[test]
fn an_odd_instance_is_skipped_and_an_odd_document_refused() {
    let text = r#"{"applications":{"apps__hashcode":"","application":[
        {"name":"A","instance":[{"instanceId":{"x":[1]},"app":"A","port":[1,2],"status":null},
            {"instanceId":"a-1","app":"A","status":"WHATEVER","status":"UP","port":"80","ipAddr":"10.0.0.1","metadata":"none","dataCenterInfo":7},
            {"instanceId":"a-2","app":"A","actionType":"DELETED"}]},
        {"name":"B","instance":null},{"name":"C","instance":""}]}}"#;
    let answered = read(text, false).unwrap();
    assert_eq!((answered.told.len(), answered.skipped), (2, 1));
    let one = answered.told[0].instance.as_ref().unwrap();
    assert_eq!(one.address.as_ref().unwrap().to_string(), "10.0.0.1:80");
    assert_eq!(answered.told[1].instance, None);
    for empty in [
        r#"{"applications":{"versions__delta":"1","apps__hashcode":"","application":[]}}"#,
        r#"{"applications":{"versions__delta":"1","apps__hashcode":""}}"#,
    ] {
        let answered = read(empty, false).unwrap();
        assert_eq!(
            (answered.hash.as_deref(), answered.told.len()),
            (Some(""), 0)
        );
    }
    for wrong in [
        "{}",
        "[]",
        "null",
        "\"\"",
        r#"{"timestamp":"2026","status":404,"error":"Not Found"}"#,
        r#"{"applications":[]}"#,
        r#"{"applications":{"application":["x"]}}"#,
        r#"{"applications":{}} x"#,
    ] {
        assert!(read(wrong, false).is_err(), "{wrong}");
    }
    for end in 0..REAL.len() {
        assert!(read_bytes(&REAL.as_bytes()[..end], false).is_err(), "{end}");
    }
    let deep = format!(
        "{{\"applications\":{{\"application\":{}",
        "[".repeat(100_000)
    );
    assert!(read(&deep, false).is_err());
}

#[test]
fn equal_parts_are_kept_once() {
    let one = |id: u32| {
        format!(
            r#"{{"instanceId":"{id}","app":"A","ipAddr":"10.0.0.1","port":{{"$":{id},"@enabled":"true"}},"status":"UP","metadata":{{"zone":"a"}}}}"#
        )
    };
    let all: Vec<String> = (1..=3).map(one).collect();
    let text = format!(
        r#"{{"applications":{{"application":[{{"instance":[{}]}}]}}}}"#,
        all.join(",")
    );
    let answered = read(&text, false).unwrap();
    let all: Vec<&Instance> = answered
        .told
        .iter()
        .filter_map(|one| one.instance.as_ref())
        .collect();
    assert!(Arc::ptr_eq(&all[0].metadata, &all[2].metadata));
    assert!(Arc::ptr_eq(
        all[0].locality.as_ref().unwrap(),
        all[2].locality.as_ref().unwrap()
    ));
}
