//! What `--sort` takes.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use dice_ood::evaluation::{Distance, Ranking, RankingMetric};

/// A name, another name for it, and what it stands for.
const RANKINGS: [(&str, &str, Ranking); 12] = [
    ("fpr95", "fpr", Ranking { over: None, metric: RankingMetric::FprAtTpr }),
    ("auroc", NO_ALIAS, Ranking { over: None, metric: RankingMetric::Auroc }),
    ("aupr-in", NO_ALIAS, Ranking { over: None, metric: RankingMetric::AuprIn }),
    ("aupr-out", NO_ALIAS, Ranking { over: None, metric: RankingMetric::AuprOut }),
    ("near-fpr95", "near-fpr", Ranking { over: Some(Distance::Near), metric: RankingMetric::FprAtTpr }),
    ("near-auroc", "near", Ranking { over: Some(Distance::Near), metric: RankingMetric::Auroc }),
    ("near-aupr-in", NO_ALIAS, Ranking { over: Some(Distance::Near), metric: RankingMetric::AuprIn }),
    ("near-aupr-out", NO_ALIAS, Ranking { over: Some(Distance::Near), metric: RankingMetric::AuprOut }),
    ("far-fpr95", "far-fpr", Ranking { over: Some(Distance::Far), metric: RankingMetric::FprAtTpr }),
    ("far-auroc", "far", Ranking { over: Some(Distance::Far), metric: RankingMetric::Auroc }),
    ("far-aupr-in", NO_ALIAS, Ranking { over: Some(Distance::Far), metric: RankingMetric::AuprIn }),
    ("far-aupr-out", NO_ALIAS, Ranking { over: Some(Distance::Far), metric: RankingMetric::AuprOut }),
];
const NO_ALIAS: &str = "";

pub(crate) fn ranking_parser() -> impl TypedValueParser<Value = Ranking> {
    let value = |(name, alias, _): (&'static str, &'static str, Ranking)| match alias {
        NO_ALIAS => PossibleValue::new(name),
        alias => PossibleValue::new(name).alias(alias),
    };
    PossibleValuesParser::new(RANKINGS.map(value)).try_map(|given| {
        let found = RANKINGS.into_iter().find(|(name, alias, _)| *name == given || *alias == given);
        found.map(|(.., ranking)| ranking).ok_or("an unknown metric")
    })
}
