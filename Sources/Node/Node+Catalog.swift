import API
import Base
import Catalog
import Features
import Models

/// What is known of a feature view: its definition and versions, what it comes from and who reads it, how fresh and how full it is,
/// and whether it is what the log gives.
extension Node {
    package func viewDetail(_ name: String) throws -> JSON {
        let registry = registry
        let catalog = try featureCatalog()
        if let derived = catalog.derived[name] { return try detail(derived, catalog) }
        guard let view = catalog.views[name] else {
            throw FeaturesError(
                "unknown-view",
                "there is no feature view '\(name)'; there are \((Array(catalog.views.keys) + Array(catalog.derived.keys)).sorted().joined(separator: ", "))"
            )
        }
        let key = "\(FeatureView.kind)/\(name)"
        let (report, usage) = watch.withLock { ($0.reports[name], $0.usage[name]) }
        let fold = viewFolds.last { $0.view.name == name }
        let folded = registry.folded[key]
        var state = "live"
        if let fold, !isLive(fold) { state = "backfilling" }
        if !isStarted { state = "stopped" }
        return .object([
            "name": .string(name), "version": .int(catalog.version(of: view)), "state": .string(state),
            "description": .string(view.description), "owner": .string(view.owner),
            "tags": .array(view.tags.map { .string($0) }), "entity": view.entity.map { .string($0) } ?? .null,
            "key": .string(catalog.keyName(of: view)), "topic": .string(view.topic),
            "definition": registry.entries[key]?.definition.body ?? .null,
            "versions": .array(
                ((folded.map { [$0] } ?? []) + (registry.beside[key] ?? [])).map { entry in
                    .object([
                        "version": .int(entry.version), "position": .string(entry.position),
                        "digest": .string(entry.definition.digest.hex),
                    ])
                }),
            "readBy": try readers(name, catalog), "features": features(view, report),
            "usage": .object([
                "questions": .int(usage?.questions ?? 0), "rows": .int(usage?.rows ?? 0),
                "last": usage?.last.map { .string($0.description) } ?? .null,
            ]),
            "newestEvent": report?.newest.map { .string($0.description) } ?? .null,
            "freshnessSeconds": freshness(report).map { .double($0) } ?? .null,
            "consistency": consistency(report),
        ])
    }

    /// Views, entities and services, as far as they hold the words searched for.
    package func featureList(search: String) throws -> JSON {
        FeatureCatalogFormat.write(try featureCatalog(), search: search)
    }

    private func detail(_ view: DerivedView, _ catalog: FeatureCatalog) throws -> JSON {
        .object([
            "name": .string(view.name), "version": .int(catalog.version(of: view)),
            "description": .string(view.description), "owner": .string(view.owner),
            "tags": .array(view.tags.map { .string($0) }),
            "of": .array(Set(view.references.map(\.text)).sorted().map { .string($0) }),
            "request": .array(view.requests.map { .string($0) }),
            "definition": registry.entries["\(DerivedView.kind)/\(view.name)"]?.definition.body ?? .null,
            "readBy": try readers(view.name, catalog),
            "features": .array(view.features.map { .object(["name": .string($0.name)]) }),
        ])
    }

    /// Everything that stands on a view, by kind.
    private func readers(_ name: String, _ catalog: FeatureCatalog) throws -> JSON {
        let workspace = try compile()
        let folded = Dictionary(workspace.foldedViews.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
        let questions = workspace.questions.filter { $0.references(in: folded).contains { $0.view == name } }
        let models = try workspace.models().filter { model in questions.contains { $0.name == model.question } }
        let datasets = try manifests().filter { $0.definitions.contains { $0.hasPrefix("view \(name)@") } }
        func names(_ list: [String]) -> JSON { .array(Set(list).sorted().map { .string($0) }) }
        return .object([
            "services": names(
                catalog.services.values.filter { $0.features.contains { $0.view == name } }.map(\.name)),
            "derived": names(
                catalog.derived.values.filter { $0.references.contains { $0.view == name } }.map(\.name)),
            "questions": names(questions.map(\.name)), "models": names(models.map(\.name)),
            "datasets": names(datasets.map(\.reference)),
        ])
    }

    private func features(_ view: FeatureView, _ report: ViewReport?) -> JSON {
        .array(
            view.aggregates.map { feature in
                var members: [String: JSON] = [
                    "name": .string(feature.name), "function": .string(feature.function.rawValue),
                    "windowSeconds": feature.span.map { .double(Double($0) / 1000) } ?? .null,
                ]
                guard let found = report?.features.first(where: { $0.name == feature.name }), found.count > 0 else {
                    return .object(members)
                }
                let numbers = found.count - found.missing
                members["sample"] = .object([
                    "keys": .int(Int64(found.count)),
                    "missingShare": .double(Double(found.missing) / Double(found.count)),
                    "mean": numbers > 0 && found.least.isFinite ? .double(found.sum / Double(numbers)) : .null,
                    "min": found.least.isFinite ? .double(found.least) : .null,
                    "max": found.most.isFinite ? .double(found.most) : .null,
                ])
                return .object(members)
            })
    }

    /// Stream time since a view's newest event, in seconds.
    func freshness(_ report: ViewReport?) -> Double? {
        guard let newest = report?.newest else { return nil }
        return Double(max(0, fold.status.now - newest)) / 1000
    }

    private func consistency(_ report: ViewReport?) -> JSON {
        guard let report else { return .null }
        return .object([
            "compared": .int(Int64(report.compared)), "mismatched": .int(Int64(report.mismatched)),
            "missing": .int(Int64(report.missing)), "extra": .int(Int64(report.extra)),
            "rounds": .int(Int64(report.rounds)), "keys": .int(Int64(report.keys)), "behind": .int(report.behind),
            "unverifiable": report.unverifiable.map { .string($0) } ?? .null,
            "difference": report.difference ?? .null,
        ])
    }

    /// Prometheus' samples of served features.
    func featureMetrics(_ metric: (String, String, String, [(String, Double)]) -> Void) {
        let (reports, usage) = watch.withLock { watch in
            (watch.reports.values.sorted { $0.view < $1.view }, watch.usage.sorted { $0.key < $1.key })
        }
        func samples(_ value: (ViewReport) -> Double?) -> [(String, Double)] {
            reports.compactMap { report in value(report).map { ("{view=\"\(report.view)\"}", $0) } }
        }
        metric(
            "headrace_features_compared_total", "counter", "Served vectors that were derived again from the log.",
            samples { Double($0.compared) })
        metric(
            "headrace_features_mismatched_total", "counter", "Of these, those that differed.",
            samples { Double($0.mismatched) })
        metric(
            "headrace_features_missing_total", "counter", "Vectors that the log gives and nobody is served.",
            samples { Double($0.missing) })
        metric(
            "headrace_features_extra_total", "counter", "Vectors that are served and the log does not give.",
            samples { Double($0.extra) })
        metric(
            "headrace_features_check_behind_events", "gauge", "Events that the check has yet to read.",
            samples { Double($0.behind) })
        metric(
            "headrace_feature_freshness_seconds", "gauge", "Stream time since the view's newest event.",
            samples { freshness($0) })
        metric(
            "headrace_feature_missing_ratio", "gauge", "Share of the sampled keys without a value.",
            reports.flatMap { report in
                report.features.filter { $0.count > 0 }.map {
                    (
                        "{view=\"\(report.view)\",feature=\"\($0.name)\"}", Double($0.missing) / Double($0.count)
                    )
                }
            })
        metric(
            "headrace_feature_questions_total", "counter", "Questions that read a view.",
            usage.map { ("{view=\"\($0.key)\"}", Double($0.value.questions)) })
    }
}
