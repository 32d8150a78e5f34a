import Base
import Datasets
import EventLog
import Foundation
import Learning
import Models
import RecordFormat
import Streams
import Training

/// The four answers of an audit.
package enum Verdict: String, Sendable {
    case exact = "EXACT"
    case withinTolerance = "WITHIN-TOLERANCE"
    case diverged = "DIVERGED"
    case unreplayable = "UNREPLAYABLE"
}

/// What an audit found, with everything that led to the verdict.
package struct AuditResult: Sendable {
    package let verdict: Verdict
    package let subject: String
    package let reason: String
    package let facts: [(String, JSON)]

    package var json: JSON {
        var members: [String: JSON] = [
            "verdict": .string(verdict.rawValue), "subject": .string(subject), "reason": .string(reason),
        ]
        for (name, value) in facts { members[name] = value }
        return .object(members)
    }
}

/// Rebuilds history from the log alone, effects off, in shadow state in memory, and compares it with what the log says.
package struct Audit {
    /// Scores of two models on the same rows may differ so much under another fingerprint.
    package static let scoreTolerance: Float = 1e-3

    private static let noChain = "this log keeps no hash chain: what was rewritten shows where it changes a result"

    private let log: any EventLog
    private let workspace: CompiledWorkspace

    package init(log: any EventLog, workspace: CompiledWorkspace) {
        self.log = log
        self.workspace = workspace
    }

    /// Folds from the beginning until `until` says so, to a limit, or until stream time is past a moment.
    private func replay(
        limit: FoldLimit = .end, past moment: Instant? = nil, comparing compared: [String: Int64]? = nil,
        until: @escaping (DerivedEvent) throws -> Bool
    ) throws -> (sink: ComparingSink, reached: Bool, runner: TopologyRunner) {
        final class Flag { var reached = false }
        let flag = Flag()
        final class Box { weak var runner: TopologyRunner? }
        let box = Box()
        let sink = ComparingSink(log: log, ends: compared) { event in
            guard !flag.reached, try until(event) else { return }
            flag.reached = true
            box.runner?.stop()
        }
        let topology = try WorkspaceTopology(workspace)
        // Bounded by what is in the log now: a replay never waits for more.
        var ends: [TopicPartition: Int64] = [:]
        for layout in log.topics {
            for partition in 0..<layout.partitions {
                let place = TopicPartition(layout.name, partition)
                ends[place] = try log.offsets(place).upperBound
            }
        }
        let runner = try TopologyRunner(
            topology: topology.topology, derived: WorkspaceTopology.derived, log: log,
            database: try StateDatabase(path: nil),
            sink: sink, ends: ends)
        box.runner = runner
        try runner.end(at: limit)
        while !flag.reached, try runner.runSlice() {
            if let moment, runner.now > moment { break }
        }
        return (sink, flag.reached, runner)
    }

    /// What the hash chain says of everything up to the subject: nil when that is whole, otherwise the verdict. Damage and
    /// rewriting behind the subject are nobody's business here.
    private func chain(_ subject: String, at position: Position?) throws -> AuditResult? {
        guard let chained = log as? EmbeddedLog else { return nil }
        let check = try chained.verify(subject: position)
        let end = check.subjectEnd ?? .max
        let damages = check.damaged.filter { $0.sequences.lowerBound < end }
        if let damaged = damages.first {
            return AuditResult(
                verdict: .unreplayable, subject: subject, reason: "the log is damaged: \(damaged)",
                facts: [("damaged", .array(damages.map { .string($0.description) }))])
        }
        guard let rewritten = check.rewritten.first(where: { $0.sequences.lowerBound < end }) else { return nil }
        let ranges = rewritten.ranges.map {
            JSON.string("\($0.partition)@\($0.offsets.lowerBound)..<\($0.offsets.upperBound)")
        }
        return AuditResult(
            verdict: .diverged, subject: subject,
            reason:
                "the log was rewritten after the fact: events \(rewritten.sequences.lowerBound)..<\(rewritten.sequences.upperBound) do not match the hash chain",
            facts: [
                ("position", ranges.first ?? .null), ("rewritten", .array(ranges)), ("file", .string(rewritten.file)),
                ("byte", .int(rewritten.at)),
            ])
    }

    private func guarded(_ subject: String, at position: Position? = nil, _ body: () throws -> AuditResult) throws
        -> AuditResult
    {
        do {
            let broken = try chain(subject, at: position)
            if let broken, broken.verdict == .unreplayable { return broken }
            let result = try body()
            guard log.capabilities.contains(.hashChain) else {
                return AuditResult(
                    verdict: result.verdict, subject: result.subject, reason: result.reason,
                    facts: result.facts + [("chain", .string(Audit.noChain))])
            }
            guard let broken else { return result }
            return AuditResult(
                verdict: .diverged, subject: subject, reason: broken.reason,
                facts: broken.facts + result.facts.filter { $0.0 == "firstDifference" })
        } catch let error as EventLogError where error.code == "rot" {
            return AuditResult(verdict: .unreplayable, subject: subject, reason: error.message, facts: [])
        }
    }

    /// Where a subject stands, as far as the log can still be read.
    private func place(_ topic: String, _ matches: (StoredEvent, JSON) -> Bool) throws -> Position? {
        do {
            return try find(topic, matches).map {
                Position(topic: topic, partition: 0, offset: $0.event.offset, sequence: nil)
            }
        } catch let error as EventLogError where error.code == "rot" {
            return nil
        }
    }

    private func find(_ topic: String, _ matches: (StoredEvent, JSON) -> Bool) throws -> (
        event: StoredEvent, data: JSON
    )? {
        var found: (StoredEvent, JSON)?
        try log.forEachEvent(TopicPartition(topic, 0)) { event in
            guard let bytes = event.data, let data = try? JSON(parsing: bytes), matches(event, data) else {
                return true
            }
            found = (event, data)
            return false
        }
        return found
    }

    private static func difference(_ sink: ComparingSink) -> [(String, JSON)] {
        guard let first = sink.first else { return [] }
        return [
            (
                "firstDifference",
                .object([
                    "position": .string(first.position), "time": .string(first.time.description),
                    "id": .string(first.id), "reason": .string(first.reason),
                ])
            )
        ]
    }

    /// Rebuilds a model's dataset from the input events and trains it again.
    package func model(_ name: String, version: Int64) throws -> AuditResult {
        let subject = "model \(name)@\(version)"
        let position = try place(ModelTopics.completed) { $1["model"]?.string == name && $1["version"]?.int == version }
        return try guarded(subject, at: position) {
            guard
                let request = try find(
                    ModelTopics.requested, { $1["model"]?.string == name && $1["version"]?.int == version }),
                let completed = try find(
                    ModelTopics.completed, { $1["model"]?.string == name && $1["version"]?.int == version })
            else { throw NodeError("unknown-model", "the log holds no training of \(name)@\(version)") }
            let (span, _) = try TrainingRun.span(request.data)
            var builder = DatasetBuilder(span: span)
            let document = JSONDocument()
            let target = request.event.id
            let (sink, reached, runner) = try replay(past: span.cut) { derived in
                guard let bytes = derived.event.data else { return false }
                switch derived.topic {
                case DatasetTopics.asked:
                    try document.parse(bytes)
                    try builder.addQuestion(document, time: derived.event.time)
                case DatasetTopics.outcomes:
                    try document.parse(bytes)
                    builder.addOutcome(document, time: derived.event.time)
                default: break
                }
                return derived.topic == ModelTopics.requested && derived.event.id == target
            }
            let facts: [(String, JSON)] =
                [("eventsFolded", .int(runner.folded)), ("eventsCompared", .int(sink.compared))]
                + Self.difference(sink)
            guard reached else {
                return AuditResult(
                    verdict: .diverged, subject: subject, reason: "the replay does not come to this training",
                    facts: facts)
            }
            return try judge(
                subject, name, version, request.data, completed.data, builder.build(), sink.first, facts)
        }
    }

    /// Trains on the rebuilt dataset and holds everything that was recorded against what comes out.
    private func judge(
        _ subject: String, _ name: String, _ version: Int64, _ request: JSON, _ completed: JSON, _ dataset: Dataset,
        _ difference: ComparingSink.Divergence?, _ known: [(String, JSON)]
    ) throws -> AuditResult {
        func verdict(_ verdict: Verdict, _ reason: String, _ facts: [(String, JSON)]) -> AuditResult {
            AuditResult(verdict: verdict, subject: subject, reason: reason, facts: facts)
        }
        let recordedDataset = completed["dataset"]?["digest"]?.string ?? ""
        let recordedModel = completed["artifact"]?["digest"]?.string ?? ""
        let incumbent = try request["incumbent"]?.int.map { try TrainingRun.artifact("artifact:\(name)@\($0)", log) }
        let run = try TrainingRun.run(request, dataset: dataset, positions: [], incumbent: incumbent)
        let artifact = "artifact:\(name)@\(version)"
        let stored = Digest.of(try TrainingRun.artifact(artifact, log)).hex
        let facts =
            known + [
                ("datasetDigest", .string(run.datasetDigest.hex)), ("recordedDatasetDigest", .string(recordedDataset)),
                ("modelDigest", .string(run.modelDigest.hex)), ("recordedModelDigest", .string(recordedModel)),
                ("storedModelDigest", .string(stored)), ("rows", .int(Int64(dataset.count))),
                ("fingerprint", BuildIdentity.fingerprint), ("recordedFingerprint", completed["fingerprint"] ?? .null),
            ]
        if let difference { return verdict(.diverged, "\(difference.position) differs: \(difference.reason)", facts) }
        guard run.datasetDigest.hex == recordedDataset else {
            return verdict(.diverged, "the rebuilt dataset is another", facts)
        }
        guard stored == recordedModel else {
            return verdict(.diverged, "the stored model is not the one that was recorded", facts)
        }
        guard run.modelDigest.hex == recordedModel else {
            return try compareModels(subject, run.model, artifact, dataset, completed, facts)
        }
        for key in ["metrics", "reference", "parameters"] where run.json[key]?.canonical != completed[key]?.canonical {
            return verdict(.diverged, "the recorded \(key) are not what the model gives", facts)
        }
        return verdict(.exact, "dataset and model were rebuilt bit for bit", facts)
    }

    /// Other bits: under another fingerprint the scores may still agree within the tolerance.
    private func compareModels(
        _ subject: String, _ model: [UInt8], _ artifact: String, _ dataset: Dataset, _ completed: JSON,
        _ facts: [(String, JSON)]
    ) throws -> AuditResult {
        guard completed["fingerprint"] != BuildIdentity.fingerprint else {
            return AuditResult(
                verdict: .diverged, subject: subject, reason: "the same machine trains another model", facts: facts)
        }
        let ours = try TreeEnsemble(xgboost: model)
        let theirs = try TreeEnsemble(xgboost: try TrainingRun.artifact(artifact, log))
        var largest: Float = 0
        for index in 0..<dataset.count {
            let row = Array(dataset.row(index))
            largest = max(largest, abs(ours.score(row) - theirs.score(row)))
        }
        let more =
            facts + [
                ("largestScoreDifference", .double(Double(largest))),
                ("tolerance", .double(Double(Self.scoreTolerance))),
            ]
        return AuditResult(
            verdict: largest <= Self.scoreTolerance ? .withinTolerance : .diverged, subject: subject,
            reason: "another machine or library trained it; scores differ by at most \(largest)", facts: more)
    }

    /// Recomputes one prediction's vector and score.
    package func prediction(_ id: String) throws -> AuditResult {
        let subject = "prediction \(id)"
        let position = try place(ModelTopics.served) { $1["id"]?.string == id || $0.id == id }
        return try guarded(subject, at: position) {
            guard let served = try find(ModelTopics.served, { $1["id"]?.string == id || $0.id == id }) else {
                throw NodeError("unknown-prediction", "the log holds no prediction '\(id)'")
            }
            var recomputed: JSON?
            let target = served.event.id
            let (sink, reached, runner) = try replay(past: served.event.time) { derived in
                guard derived.topic == ModelTopics.served, derived.event.id == target else { return false }
                recomputed = derived.event.data.flatMap { try? JSON(parsing: $0) }
                return true
            }
            var facts: [(String, JSON)] =
                [("eventsFolded", .int(runner.folded)), ("eventsCompared", .int(sink.compared))]
                + Self.difference(sink)
            guard reached, let recomputed else {
                return AuditResult(
                    verdict: .diverged, subject: subject, reason: "the replay does not serve this prediction",
                    facts: facts)
            }
            facts += [
                ("model", .string("\(served.data["model"]?.string ?? "")@\(served.data["version"]?.int ?? 0)")),
                ("score", recomputed["score"] ?? .null), ("recordedScore", served.data["score"] ?? .null),
                ("vector", recomputed["vector"] ?? .null),
                ("position", .string("\(ModelTopics.served)/0@\(served.event.offset)")),
            ]
            guard recomputed == served.data else {
                return AuditResult(
                    verdict: .diverged, subject: subject, reason: "the recomputed prediction is another", facts: facts)
            }
            if let first = sink.first {
                return AuditResult(
                    verdict: .diverged, subject: subject,
                    reason: "on the way to it, \(first.position) differs: \(first.reason)", facts: facts)
            }
            return AuditResult(
                verdict: .exact, subject: subject, reason: "vector and score were recomputed bit for bit", facts: facts)
        }
    }

    /// Folds everything again and compares every derived event and every state digest.
    /// - Parameter held: the state that is in service, if it can be had; it is compared where it has come equally far.
    package func everything(to limit: FoldLimit, held: (StateBucket?) throws -> HeldState?) throws -> AuditResult {
        let subject = limit.isEnd ? "history" : "history to \(limit)"
        return try guarded(subject) {
            let begun = Date()
            // What the log holds now; a fold that is still behind its inputs will add to it, which is no difference.
            var ends: [String: Int64] = [:]
            let side = [SideTopics.platform.digests, SideTopics.platform.late, SideTopics.platform.unfolded]
            for topic in WorkspaceTopology.derived.union(side).sorted() {
                ends[topic] = try log.offsets(TopicPartition(topic, 0)).upperBound
            }
            var emitted: [String: Int64] = [:]
            let (sink, _, runner) = try replay(limit: limit, comparing: ends) { derived in
                emitted[derived.topic] = derived.offset + 1
                return false
            }
            let folded = runner.folded
            let ours = try HeldState(runner)
            let theirs = limit.isEnd ? try held(nil).flatMap { $0.mark == ours.mark ? $0 : nil } : nil
            let facts: [(String, JSON)] =
                [
                    ("eventsFolded", .int(folded)), ("eventsCompared", .int(sink.compared)),
                    ("storesCompared", .int(Int64(theirs?.digests.count ?? 0))),
                    ("seconds", .double(Date().timeIntervalSince(begun))),
                ] + Self.difference(sink)
            if let first = sink.first {
                return AuditResult(
                    verdict: .diverged, subject: subject, reason: "\(first.position) differs: \(first.reason)",
                    facts: facts)
            }
            if limit.isEnd {
                for (topic, end) in ends.sorted(by: { $0.key < $1.key }) where emitted[topic, default: 0] < end {
                    var more: Int64?
                    try log.forEachEvent(TopicPartition(topic, 0), from: emitted[topic, default: 0], to: end) { event in
                        more = event.offset
                        return false
                    }
                    guard let more else { continue }
                    return AuditResult(
                        verdict: .diverged, subject: subject,
                        reason: "the log holds \(topic)/0@\(more), which the replay does not emit", facts: facts)
                }
            }
            if let theirs, let other = try ours.difference(from: theirs, runner, ask: held) {
                return AuditResult(
                    verdict: .diverged, subject: subject, reason: other.reason, facts: facts + other.facts)
            }
            var compared: [String] = []
            if sink.compared > 0 { compared.append("\(sink.compared) derived events and state digests") }
            if let theirs { compared.append("the \(theirs.digests.count) stores of the state in service") }
            if folded == 0, compared.isEmpty {
                return AuditResult(
                    verdict: .exact, subject: subject, reason: "the log holds nothing that is folded", facts: facts)
            }
            guard !compared.isEmpty else {
                return AuditResult(
                    verdict: .unreplayable, subject: subject,
                    reason:
                        "\(folded) events were folded without a mistake, but nothing was recorded that they could be compared with: no derived event, no state digest (one each midnight of stream time) and no state that was folded as far",
                    facts: facts)
            }
            return AuditResult(
                verdict: .exact, subject: subject,
                reason: compared.joined(separator: " and ") + " were recomputed bit for bit", facts: facts)
        }
    }
}
