import API
import Base
import EventLog
import Features
import Foundation
import Streams

/// What the online store resolved already: the catalog of a registry and the plans made from it.
struct ServingCache {
    private(set) var epoch = 0
    var catalog: FeatureCatalog?
    var plans: [Names: ServedPlan] = [:]

    /// What a question asks for, whoever's keys.
    struct Names: Hashable {
        let service: String?
        let features: [String]

        init(_ question: FeatureQuestion) { (service, features) = (question.service, question.features) }
    }

    /// Definitions came into force.
    mutating func forget() {
        epoch += 1
        (catalog, plans) = (nil, [:])
    }
}

/// A question with its names resolved, and which fold answers which part of it.
struct ServedPlan {
    struct Part {
        let fold: FoldHost
        let plan: FeaturePlan
    }

    let whole: FeaturePlan
    let parts: [Part]
}

/// The online feature store: features of many keys in one call, now and as of moments of the past.
extension Node {
    package func featureCatalog() throws -> FeatureCatalog {
        let (known, epoch) = serving.withLock { ($0.catalog, $0.epoch) }
        if let known { return known }
        let registry = registry
        let workspace = try compile(registry)
        let catalog = FeatureCatalog(
            views: workspace.views, derived: workspace.derived, entities: workspace.entities,
            services: workspace.services,
            versions: registry.entries.mapValues(\.version))
        // Not what was made of definitions that are out of force by now.
        serving.withLock { if $0.epoch == epoch { $0.catalog = catalog } }
        return catalog
    }

    /// Values that are read on the spot; more of them would hold one of Swift's threads.
    private static let shortAnswer = 5000
    /// Readings on the thread of a connection: about a quarter of a millisecond.
    private static let quickReadings = 1000
    /// Keys there: one that is not in memory is read from the disk first.
    private static let quickRows = 16

    /// The catalog as it is served now: of a view whose newest version has not caught up, the one before it.
    func servedCatalog() throws -> FeatureCatalog {
        let registry = registry
        let workspace = try compile(registry)
        var versions = registry.entries.mapValues(\.version)
        let folded = Dictionary(workspace.foldedViews.map { ($0.name, $0) }, uniquingKeysWith: { $1 })
        let views = workspace.views.map { view in
            let key = "\(FeatureView.kind)/\(view.name)"
            guard let entry = registry.entries[key], entry.isBeside, registry.live[key] != entry.version,
                entry.definition.body != registry.folded[key]?.definition.body
            else { return view }
            if let fold = liveFold(view.name) {
                versions[key] = fold.version
                return fold.view
            }
            versions[key] = registry.folded[key]?.version ?? versions[key]
            return folded[view.name] ?? view
        }
        return FeatureCatalog(
            views: views, derived: workspace.derived, entities: workspace.entities, services: workspace.services,
            versions: versions)
    }

    /// Names are resolved once: a caller asks for the same features again and again.
    private func plan(_ question: FeatureQuestion) throws -> ServedPlan {
        let key = ServingCache.Names(question)
        let (known, epoch) = serving.withLock { ($0.plans[key], $0.epoch) }
        if let known { return known }
        let whole = try servedCatalog().plan(service: question.service, features: question.features)
        let folded = registry.folded
        var parts: [ServedPlan.Part] = []
        var own: Set<String> = []
        for name in whole.viewNames {
            if let fold = liveFold(name) {
                parts.append(ServedPlan.Part(fold: fold.host, plan: whole.part(of: [name])))
            } else if folded["\(FeatureView.kind)/\(name)"] != nil {
                own.insert(name)
            } else {
                throw backfilling(name)
            }
        }
        if !own.isEmpty || parts.isEmpty {
            parts.insert(ServedPlan.Part(fold: fold, plan: parts.isEmpty ? whole : whole.part(of: own)), at: 0)
        }
        let plan = ServedPlan(whole: whole, parts: parts)
        serving.withLock { cache in
            guard cache.epoch == epoch else { return }
            if cache.plans.count >= Limits.onlinePlans { cache.plans = [:] }
            cache.plans[key] = plan
        }
        return plan
    }

    /// Of a view that has never been served.
    private func backfilling(_ name: String) -> FeaturesError {
        guard isStarted, let fold = viewFolds.last(where: { $0.view.name == name }) else {
            return FeaturesError(
                "not-started", "the view '\(name)' is folded by a node that runs; start it", fault: .world)
        }
        let status = fold.host.status
        let time = status.now == .distantPast ? "nothing" : "\(status.now)"
        return FeaturesError(
            "backfilling",
            "the view '\(name)' is being filled from the log: \(status.folded) events so far, up to \(time); ask again",
            fault: .world, retriable: true)
    }

    package func onlineFeatures(_ question: FeatureQuestion) async throws -> FeatureAnswer {
        try await again { try await answer(try plan(question), question) }
    }

    /// The same for a thread that must not wait: nil where the answer is not at hand, or is more than a moment's work, and for every
    /// mistake, so that the way that may wait answers.
    package func onlineFeaturesNow(_ question: FeatureQuestion) -> FeatureAnswer? {
        let key = ServingCache.Names(question)
        guard let plan = serving.withLock({ $0.plans[key] }), !plan.whole.isDerived else { return nil }
        let rows = question.entities.first?.keys.count ?? 0
        guard rows <= Self.quickRows, rows * plan.whole.readings <= Self.quickReadings else { return nil }
        var whole: FeatureAnswer?
        for part in plan.parts {
            let answer = try? part.fold.askNow { runner in
                try Node.features(runner.topology).answer(part.plan, question, at: runner.now)
            }
            guard let answer = answer ?? nil else { return nil }
            if whole == nil { whole = answer } else { whole?.take(answer, part.plan) }
        }
        guard let whole, let finished = try? Node.finish(whole, plan.whole, question) else { return nil }
        noteUse(plan.whole, question, rows: rows)
        return finished
    }

    /// Asks, and once more where the version that was asked has just been taken the place of.
    private func again<R>(_ body: () async throws -> R) async throws -> R {
        do {
            return try await body()
        } catch let error as any DescribedError
            where ["fold-stopped", "busy", "view-changed"].contains(error.code) && !viewFolds.isEmpty
        {
            serving.withLock { $0.forget() }
            return try await body()
        }
    }

    /// Every part as of its own fold's stream time: those are apart by what is under way.
    private func answer(_ plan: ServedPlan, _ question: FeatureQuestion) async throws -> FeatureAnswer {
        var whole: FeatureAnswer?
        let rows = question.entities.first?.keys.count ?? 0
        let isShort = rows * plan.whole.width <= Self.shortAnswer
        for part in plan.parts {
            @Sendable func read(_ runner: TopologyRunner) throws -> FeatureAnswer {
                try Node.features(runner.topology).answer(part.plan, question, at: runner.now)
            }
            let answer = isShort ? try await part.fold.askShortly(read) : try await part.fold.ask(read)
            if whole == nil { whole = answer } else { whole?.take(answer, part.plan) }
        }
        guard let whole else { throw FeaturesError("no-features", "there is nothing to read") }
        noteUse(plan.whole, question, rows: question.entities.first?.keys.count ?? 0)
        guard !isShort, plan.whole.isDerived else { return try Node.finish(whole, plan.whole, question) }
        let read = whole
        return try await pastWork.run { try Node.finish(read, plan.whole, question) }
    }

    package func features(view: String, key: String) async throws -> JSON {
        try await again { try await vector(view, key) }
    }

    private func vector(_ view: String, _ key: String) async throws -> JSON {
        let catalog = try featureCatalog()
        guard catalog.derived[view] == nil else {
            throw FeaturesError(
                "unknown-view",
                "'\(view)' is worked out of other views, which may have other keys; ask for it by POST /v1/features")
        }
        let names = catalog.views.keys.sorted()
        // One that was removed may go on being folded, for history alone.
        guard catalog.views[view] != nil else {
            throw FeaturesError(
                "unknown-view", "there is no feature view '\(view)'; there are \(names.joined(separator: ", "))")
        }
        noteUse(view)
        let host = liveFold(view)?.host ?? fold
        if host === fold, registry.folded["\(FeatureView.kind)/\(view)"] == nil {
            throw backfilling(view)
        }
        return try await host.askShortly { runner in
            var members: [String: JSON] = [:]
            for (name, value) in try Node.features(runner.topology).read(
                view: view, key: key, at: runner.now, known: names)
            {
                members[name] = value
            }
            return .object([
                "view": .string(view), "key": .string(key), "asOf": Node.moment(runner.now),
                "features": .object(members),
            ])
        }
    }

    private static func finish(
        _ answer: FeatureAnswer, _ plan: FeaturePlan, _ question: FeatureQuestion
    ) throws -> FeatureAnswer {
        var answer = answer
        answer.columns = try plan.finish(answer.columns, count: try question.rowCount()) { question.values($0) }.columns
        return answer
    }

    private static func features(_ topology: Topology) throws -> FeatureStage {
        for stage in topology.stages { if let features = stage as? FeatureStage { return features } }
        throw FeaturesError("unknown-view", "the workspace has no feature views")
    }

    package func pastOnlineFeatures(_ question: FeatureQuestion, asOf: String) throws -> FeatureAnswer {
        let plan = try featureCatalog().plan(service: question.service, features: question.features)
        let names = Set(plan.viewNames)
        let (stage, moment) = try pastStage(names, asOf: asOf)
        return try Node.finish(try stage.answer(plan, question, at: moment), plan, question)
    }

    /// Stream time of the workspace's fold: what it is at, or was when it was last stored.
    private func storedTime() throws -> Instant {
        if isStarted { return fold.status.now }
        guard FileManager.default.fileExists(atPath: configuration.stateFile) else { return .distantPast }
        let meta = try StateDatabase(path: configuration.stateFile, isKept: true).standing()?.meta
        return meta?["now"].flatMap { Int64($0) }.map { Instant(milliseconds: $0) } ?? .distantPast
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
                sorted: workspace.sorted.union(stage.inputs.filter { !workspace.foldedTopics.contains($0) })),
            derived: [], log: log, database: try StateDatabase(path: nil), sink: DiscardingSink(), ends: ends)
        try runner.end(at: limit)
        runner.recordsDigests = false
        while try runner.runSlice() {}
        // The workspace's stream time goes on with every topic, not these alone.
        if moment == .distantFuture { moment = max(runner.now, try storedTime()) }
        return (stage, moment)
    }
}
