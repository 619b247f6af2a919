//! The witnesses and their file, in a temporary folder.

use super::*;
use crate::domain::Term;

fn at(term: char, sequence: u64) -> HistoryPoint {
    HistoryPoint { epoch: 7, term: Term::parse(term.to_string().repeat(40).as_bytes()).unwrap(), sequence }
}

#[test]
fn what_is_known_outlives_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let (name, metrics) = (NamespaceName::parse("sale".into()).unwrap(), Arc::new(Metrics::new()));
    let config = crate::namespaces::Defaults::from(&crate::config::Config::default())
        .propose(Some(2), &crate::random::Random::System);
    let open = || Witnesses::open(Some(folder.path()), true, Arc::clone(&metrics)).unwrap();
    {
        let witnesses = open();
        let partitions = witnesses.opened(&name, &config, &[7, 8]);
        partitions[0].observe(at('a', 5));
        assert!(!witnesses.write(), "the store is not known yet");
        witnesses.identity.set_id("0123456789abcdef0123456789abcdef");
        assert!(witnesses.write());
    }
    let witnesses = open();
    assert_eq!(witnesses.identity.id().as_deref(), Some("0123456789abcdef0123456789abcdef"));
    assert!(witnesses.config(&name) == Some(config));
    assert_eq!(witnesses.opening_knowledge(&name, 0).claims, [at('a', 5)]);
    let exists = HistoryPoint { epoch: 8, term: Term::NONE, sequence: 0 };
    assert_eq!(witnesses.opening_knowledge(&name, 1).claims, [exists]);
    assert!(witnesses.opening_knowledge(&NamespaceName::parse("other".into()).unwrap(), 0).claims.is_empty());
}
