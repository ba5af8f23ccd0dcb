//! Paths and parameters that strangers ask for: nothing panics, a redirection leads somewhere, and a key survives its path and
//! its id.
#![no_main]

use hyper::Method;
use jobmon::config::Paths;
use jobmon::exposition::Validation;
use jobmon::gateway::route::{Layout, Misroute, Route, route};
use jobmon::grouping::{GroupingKey, Selector};
use jobmon::store::{Run, RunId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|path: &str| {
    if let Some(key) = GroupingKey::from_id(path) {
        assert_eq!(key.to_id(), path);
    }
    let _ = (Selector::parse(path), RunId::parse(path), Run::parse(path));
    for prefix in ["", "/prefix"] {
        for names in [Validation::Legacy, Validation::Utf8] {
            let paths = Paths { prefix: prefix.to_owned(), telemetry: "/metrics".to_owned(), external: None };
            let layout = Layout { paths, names, admin: true };
            for method in [Method::GET, Method::PUT, Method::OPTIONS] {
                let path = format!("{prefix}{path}");
                match route(&method, &path, None, &layout) {
                    Ok(Route::Push { key: Ok(key), .. }) => {
                        assert_eq!(GroupingKey::from_id(&key.to_id()).as_ref(), Some(&key));
                        for again in [key.to_path(), key.to_base64_path()] {
                            let again = route(&method, &format!("{prefix}/metrics{again}"), None, &layout);
                            assert!(matches!(again, Ok(Route::Push { key: Ok(same), .. }) if same == key));
                        }
                    }
                    Err(Misroute::Redirect { location, .. }) => {
                        // One step more at most: first the path is cleaned, then it is looked for.
                        let next = route(&method, &location, None, &layout);
                        let next = match next {
                            Err(Misroute::Redirect { location, .. }) => route(&method, &location, None, &layout),
                            other => other,
                        };
                        assert!(!matches!(next, Err(Misroute::Redirect { .. })), "{path} {location} {next:?}");
                    }
                    _ => {}
                }
            }
        }
    }
});
