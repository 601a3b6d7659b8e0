use super::*;
use crate::NO_ENTRIES;

fn keys() -> [Keypair; 3] {
    [1, 2, 3].map(|n| Keypair::ed25519_from_bytes([n; 32]).expect("a key"))
}

fn peer(key: &Keypair) -> PeerId {
    key.public().to_peer_id()
}

fn ad(provider: &Keypair) -> Advertisement {
    Advertisement {
        previous_id: None,
        provider: peer(provider).to_string(),
        addresses: vec!["/ip4/127.0.0.1/tcp/3103".into(), "/ip4/127.0.0.1/tcp/3104".into()],
        signature: Vec::new(),
        entries: NO_ENTRIES,
        context_id: b"context".to_vec(),
        metadata: vec![1, 2, 3],
        is_rm: false,
        extended_provider: None,
    }
}

fn extended(provider: &Keypair, others: &[&Keypair]) -> Advertisement {
    let entry = |key: &&Keypair| Provider {
        id: peer(key).to_string(),
        addresses: vec!["/ip4/10.0.0.1/tcp/1".into()],
        metadata: vec![9],
        signature: Vec::new(),
    };
    let providers = others.iter().map(entry).collect();
    Advertisement { extended_provider: Some(ExtendedProvider { providers, overrides: false }), ..ad(provider) }
}

#[test]
fn a_provider_or_a_publisher_on_behalf_of_it_signs_and_is_told() {
    let [provider, publisher, _] = keys();
    for key in [&provider, &publisher] {
        let mut ad = ad(&provider);
        ad.sign(key).expect("signs");
        let signers = ad.verify().expect("holds");
        assert_eq!(signers, Signers { advertisement: peer(key), extended: vec![] });
        assert_eq!(ad.provider_id() == Some(signers.advertisement), peer(key) == peer(&provider));
    }
}

#[test]
fn an_advertisement_without_a_signature_or_with_another_ones_is_refused() {
    let [provider, ..] = keys();
    let mut signed = ad(&provider);
    assert!(matches!(signed.verify(), Err(IpniError::Form { .. })), "no signature");
    signed.sign(&provider).expect("signs");
    let other = Advertisement { signature: signed.signature.clone(), metadata: vec![4], ..ad(&provider) };
    assert_eq!(other.verify(), Err(IpniError::OtherContent { what: "advertisement", signer: peer(&provider) }));
}

#[test]
fn an_envelope_of_another_type_is_refused() {
    let [provider, ..] = keys();
    let mut ad = ad(&provider);
    ad.signature = seal(&provider, EXTENDED_TYPE, ad.payload()).expect("seals");
    assert!(matches!(ad.verify(), Err(IpniError::Form { .. })));
    ad.signature = seal(&provider, AD_TYPE, ad.payload()).expect("seals");
    assert!(ad.verify().is_ok());
}

#[test]
fn with_extended_providers_the_publisher_does_not_sign_alone() {
    let [provider, other, _] = keys();
    let mut ad = extended(&provider, &[&provider, &other]);
    let before = ad.clone();
    assert_eq!(ad.sign(&provider), Err(IpniError::NotAlone));
    let missing = IpniError::NoKey(peer(&other).to_string());
    assert_eq!(ad.sign_with_extended(&provider, std::slice::from_ref(&provider)), Err(missing));
    assert_eq!(ad, before, "what fails leaves no half of it behind");
    ad.sign_with_extended(&provider, std::slice::from_ref(&other)).expect("signs");
    let signers = ad.verify().expect("holds");
    assert_eq!(signers, Signers { advertisement: peer(&provider), extended: vec![peer(&provider), peer(&other)] });
    assert_eq!(signers.unproven(&ad).count(), 0);
}

#[test]
fn the_publisher_signs_for_the_provider_and_for_nobody_else() {
    let [provider, publisher, other] = keys();
    let mut ad = extended(&provider, &[&other, &provider]);
    ad.sign_with_extended(&publisher, std::slice::from_ref(&other)).expect("signs");
    let signers = ad.verify().expect("holds");
    assert_eq!(signers.extended, [peer(&other), peer(&publisher)]);
    assert_eq!(signers.unproven(&ad).count(), 0);

    // Whoever it is signs in the place of `other`: the signature holds, and proves nothing of `other`.
    let extended = ad.extended_provider.as_ref().expect("extended");
    let payload = ad.extended_payload(&extended.providers[0], false);
    let forged = seal(&publisher, EXTENDED_TYPE, payload).expect("seals");
    ad.extended_provider.as_mut().expect("extended").providers[0].signature = forged;
    let signers = ad.verify().expect("holds");
    let unproven: Vec<_> = signers.unproven(&ad).map(|entry| entry.id.clone()).collect();
    assert_eq!(unproven, [peer(&other).to_string()]);
}

#[test]
fn the_provider_must_be_among_the_extended_ones_and_a_removal_has_none() {
    let [provider, other, _] = keys();
    let mut ad = extended(&provider, &[&other]);
    let missing = Err(IpniError::ProviderMissing(peer(&provider).to_string()));
    assert_eq!(ad.sign_with_extended(&provider, std::slice::from_ref(&other)), missing);
    let mut removal = Advertisement { is_rm: true, ..extended(&provider, &[&provider]) };
    assert_eq!(removal.sign_with_extended(&provider, &[]), Err(IpniError::RemovalExtended));

    // Nor is such a one taken.
    ad.signature = seal(&provider, AD_TYPE, ad.payload()).expect("seals");
    assert_eq!(ad.verify().map(drop), missing);
    removal.signature = seal(&provider, AD_TYPE, removal.payload()).expect("seals");
    assert_eq!(removal.verify(), Err(IpniError::RemovalExtended));

    let mut nobody = extended(&provider, &[]);
    nobody.sign_with_extended(&provider, &[]).expect("signs");
    assert!(nobody.verify().is_ok(), "an empty list asks nobody");
}
