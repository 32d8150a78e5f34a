import API
import Base
import EventLog
import Features
import Streams

/// What the online store resolved already: the catalog of a registry and the plans made from it.
struct ServingCache {
    private(set) var epoch = 0
    var catalog: FeatureCatalog?
    var plans: [String: FeaturePlan] = [:]

    /// Definitions came into force.
    mutating func forget() {
        epoch += 1
        (catalog, plans) = (nil, [:])
    }
}

/// The online feature store: features of many keys in one call, now and as of moments of the past.
extension Node {
    package func featureCatalog() throws -> FeatureCatalog {
        let (known, epoch) = serving.withLock { ($0.catalog, $0.epoch) }
        if let known { return known }
        let registry = registry
        let workspace = try compile(registry)
        let catalog = FeatureCatalog(
            views: workspace.views, entities: workspace.entities, services: workspace.services,
            versions: registry.entries.mapValues(\.version))
        // Not what was made of definitions that are out of force by now.
        serving.withLock { if $0.epoch == epoch { $0.catalog = catalog } }
        return catalog
    }

    /// Names are resolved once: a caller asks for the same features again and again.
    private func plan(_ question: FeatureQuestion) throws -> FeaturePlan {
        let key = ([question.service ?? ""] + question.features).joined(separator: "\u{1F}")
        let (known, epoch) = serving.withLock { ($0.plans[key], $0.epoch) }
        if let known { return known }
        let plan = try featureCatalog().plan(service: question.service, features: question.features)
        serving.withLock { cache in
            guard cache.epoch == epoch else { return }
            if cache.plans.count >= Limits.onlinePlans { cache.plans = [:] }
            cache.plans[key] = plan
        }
        return plan
    }

    package func onlineFeatures(_ question: FeatureQuestion) async throws -> FeatureAnswer {
        let plan = try plan(question)
        return try await fold.ask { runner in
            try Node.features(runner.topology).answer(plan, question, at: runner.now)
        }
    }

    private static func features(_ topology: Topology) throws -> FeatureStage {
        for stage in topology.stages { if let features = stage as? FeatureStage { return features } }
        throw FeaturesError("unknown-view", "the workspace has no feature views")
    }

    package func pastOnlineFeatures(_ question: FeatureQuestion, asOf: String) throws -> FeatureAnswer {
        let plan = try plan(question)
        let names = Set(plan.references.map(\.view))
        let (stage, moment) = try pastStage(names, asOf: asOf)
        return try stage.answer(plan, question, at: moment)
    }

    /// Views folded again from the log as far as a moment, and the moment they are as of.
    func pastStage(_ names: Set<String>, asOf text: String?) throws -> (stage: FeatureStage, moment: Instant) {
        let limit = try Node.limit(text)
        var moment = Instant.distantFuture
        if case .time(let time) = limit { moment = time }
        let workspace = try compile()
        let stage = FeatureStage(views: workspace.views.filter { names.contains($0.name) }, questions: [])
        guard !stage.views.isEmpty else { return (stage, moment) }
        var ends: [TopicPartition: Int64] = [:]
        for topic in Set(stage.views.map(\.topic)) {
            for partition in 0..<log.partitions(of: topic) {
                let place = TopicPartition(topic, partition)
                ends[place] = try log.offsets(place).upperBound
            }
        }
        let runner = try TopologyRunner(
            topology: Topology(
                name: "as of", stages: [stage], answers: [], attachments: [],
                upstream: workspace.folds.upstream(of: stage.inputs), readings: workspace.readings,
                sorted: workspace.sorted),
            derived: [], log: log, database: try StateDatabase(path: nil), sink: DiscardingSink(), ends: ends)
        try runner.end(at: limit)
        runner.recordsDigests = false
        while try runner.runSlice() {}
        if moment == .distantFuture { moment = runner.now }
        return (stage, moment)
    }
}
