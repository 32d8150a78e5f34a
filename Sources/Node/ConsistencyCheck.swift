import Base
import Catalog
import EventLog
import Features
import Foundation
import RecordFormat
import Streams

/// What is known of a view from its sample.
struct ViewReport: Sendable {
    struct Feature: Sendable {
        let name: String
        var missing = 0
        var count = 0
        var sum = 0.0
        var least = Double.infinity
        var most = -Double.infinity
    }

    let view: String
    let version: Int64
    /// Vectors that were compared, and of them those that differed, were not served, or were served of nothing.
    var compared = 0
    var mismatched = 0
    var missing = 0
    var extra = 0
    var rounds = 0
    /// Events that the check has not read yet, and the fold has.
    var behind: Int64 = 0
    /// The newest difference.
    var difference: JSON?
    /// Why nothing can be compared.
    var unverifiable: String?
    /// Event time of the view's newest event.
    var newest: Instant?
    /// Of the newest round's vectors.
    var features: [Feature] = []
    var keys = 0

    var faults: Int { mismatched + missing + extra }
}

/// Derives a sample of a view's served vectors again from the log, all the time, and compares them to the bit (sums are exact,
/// so healthy data differs nowhere). It reads the log for itself and folds for itself: what is wrong in the state, on the disk
/// or in a restart shows, whatever it came from. Lives on one thread.
final class ConsistencyCheck {
    private struct Cursor {
        var next: Int64
        var progress = PartitionProgress()
    }

    private struct Snapshot: Sendable {
        var positions: [TopicPartition: Int64] = [:]
        var now = Instant.distantPast
        /// Of a topic whose events wait: up to when all of them were folded.
        var released: Instant?
        var vectors: [String: ViewSample.Vector] = [:]
    }

    let fold: FoldHost
    private(set) var report: ViewReport
    private let log: any EventLog
    private let reading: TopicReading?
    private var sample: ViewSample
    private var cursors: [TopicPartition: Cursor] = [:]
    private let document = JSONDocument()

    init(_ view: FeatureView, version: Int64, fold: FoldHost, log: any EventLog, _ workspace: CompiledWorkspace) {
        self.fold = fold
        self.log = log
        sample = ViewSample(view)
        report = ViewReport(view: view.name, version: version)
        reading = workspace.readings[view.topic]
        let topic = workspace.topics.first { $0.definition.name == view.topic }?.definition
        if let writer = workspace.folds.writer(of: view.topic) {
            report.unverifiable = "its topic is written by the fold '\(writer.name)', and a replay checks that"
        }
        if topic?.compacted == true {
            report.unverifiable = "its topic is compacted: what was folded is not there any more"
        }
    }

    /// Reads on, and compares when it has read as far as the fold had folded.
    /// - Parameters:
    ///   - asked: keys that somebody asked for.
    ///   - turn: how long it may read the log, in seconds.
    /// - Returns: whether vectors were compared and some differed.
    func round(asked: [String], turn: Double) throws -> Bool {
        guard report.unverifiable == nil else { return false }
        let view = sample.view
        if cursors.isEmpty {
            for partition in 0..<log.partitions(of: view.topic) {
                let place = TopicPartition(view.topic, partition)
                let first = try log.offsets(place).lowerBound
                guard first == 0 else {
                    report.unverifiable = "retention took the beginning of \(place)"
                    return false
                }
                cursors[place] = Cursor(next: 0)
            }
        }
        let keys = sample.keys
        let wanted = Set(keys).union(asked.filter { sample.covers($0) })
        let snapshot = try fold.askBlocking { runner in
            guard let stage = runner.topology.stages.lazy.compactMap({ $0 as? FeatureStage }).first else {
                return Snapshot()
            }
            var snapshot = Snapshot(now: runner.now, released: runner.released(view.topic))
            for (place, next) in runner.positions where place.topic == view.topic { snapshot.positions[place] = next }
            for key in wanted { snapshot.vectors[key] = try stage.vector(view, key, at: runner.now) }
            return snapshot
        }
        for (place, cursor) in cursors where try log.offsets(place).lowerBound > cursor.next {
            report.unverifiable = "retention took events of \(place) before they were read"
            return false
        }
        guard try read(to: snapshot.positions, turn) else { return false }
        if sample.isOverloaded {
            report.unverifiable = "too many of its keys have too many events in their windows"
            return false
        }
        return compare(snapshot, keys: keys, wanted: wanted)
    }

    /// - Returns: false when time was up before.
    private func read(to ends: [TopicPartition: Int64], _ turn: Double) throws -> Bool {
        let begun = DispatchTime.now().uptimeNanoseconds
        report.behind = cursors.reduce(0) { $0 + max(0, (ends[$1.key] ?? 0) - $1.value.next) }
        for place in cursors.keys.sorted(by: { $0.partition < $1.partition }) {
            var cursor = cursors[place] ?? Cursor(next: 0)
            let end = ends[place] ?? 0
            var count = 0
            var isLate = false
            if cursor.next < end {
                try log.forEachEvent(place, from: cursor.next, to: end) { event in
                    take(event, place, &cursor)
                    count += 1
                    isLate =
                        count % 64 == 0
                        && Double(DispatchTime.now().uptimeNanoseconds - begun) / 1e9 > turn
                    return !isLate
                }
            }
            cursors[place] = cursor
            // The last event that the fold has folded stands right before the end.
            if cursor.next < end { return false }
        }
        report.behind = 0
        return true
    }

    private func take(_ event: StoredEvent, _ place: TopicPartition, _ cursor: inout Cursor) {
        cursor.next = event.offset + 1
        let parsed: Bool? = event.withData { raw in (try? document.parse(raw)) != nil }
        guard parsed == true else { return }
        guard !event.isProgress else { return cursor.progress.apply(document) }
        guard Instant.written.contains(event.time) else { return }
        let late = LateTurn(event.time, behind: cursor.progress)
        guard sample.view.takes(lag: late?.lag(of: event.time)) else { return }
        guard (try? reading?.lift(document, stated: event.header(EventHeader.dataVersion))) != nil || reading == nil
        else { return }
        sample.take(document, time: event.time, late: late, partition: place.partition, offset: event.offset)
    }

    private func compare(_ snapshot: Snapshot, keys: [String], wanted: Set<String>) -> Bool {
        let before = report.faults
        report.rounds += 1
        report.keys = keys.count
        report.newest = sample.newest == .min ? nil : min(Instant(milliseconds: sample.newest), snapshot.now)
        report.features = sample.view.aggregates.map { ViewReport.Feature(name: $0.name) }
        for key in wanted.sorted() {
            // Where events wait for their turn, those behind what was released may be folded or not.
            if let released = snapshot.released,
                sample.hasEvent(key, from: released, through: max(released, snapshot.now))
            {
                if let served = snapshot.vectors[key] { summarize(served) }
                continue
            }
            let expected = sample.vector(key, at: snapshot.now)
            let served = snapshot.vectors[key]
            report.compared += 1
            switch (served, expected) {
            case (nil, nil): continue
            case (nil, .some): note(key, snapshot, "missing") { report.missing += 1 }
            case (.some, nil):
                // Of a key that came a moment ago the sample has all or nothing.
                guard sample.covers(key) else { continue }
                note(key, snapshot, "extra") { report.extra += 1 }
            case (let served?, let expected?):
                summarize(served)
                guard let place = served.firstDifference(expected) else { continue }
                note(key, snapshot, "mismatch", place, served, expected) { report.mismatched += 1 }
            }
        }
        return report.faults > before
    }

    private func summarize(_ vector: ViewSample.Vector) {
        for place in report.features.indices {
            let value = vector.values[place]
            report.features[place].count += 1
            guard !value.isNaN else {
                if vector.texts[place] == nil { report.features[place].missing += 1 }
                continue
            }
            report.features[place].sum += value
            report.features[place].least = min(report.features[place].least, value)
            report.features[place].most = max(report.features[place].most, value)
        }
    }

    private func note(
        _ key: String, _ snapshot: Snapshot, _ kind: String, _ place: Int? = nil, _ served: ViewSample.Vector? = nil,
        _ expected: ViewSample.Vector? = nil, _ count: () -> Void
    ) {
        count()
        func value(_ vector: ViewSample.Vector?) -> JSON {
            guard let vector, let place else { return .null }
            return vector.texts[place].map { .string($0) }
                ?? (vector.values[place].isNaN ? .null : .double(vector.values[place]))
        }
        report.difference = .object([
            "view": .string(report.view), "version": .int(report.version), "key": .string(key), "kind": .string(kind),
            "feature": place.map { .string(sample.view.aggregates[$0].name) } ?? .null,
            "served": value(served), "expected": value(expected),
            "servedTime": served.map { .string(Instant(milliseconds: $0.lastTime).description) } ?? .null,
            "expectedTime": expected.map { .string(Instant(milliseconds: $0.lastTime).description) } ?? .null,
            "asOf": .string(snapshot.now.description),
            "positions": .object(
                Dictionary(
                    snapshot.positions.map { ($0.key.description, JSON.int($0.value)) }, uniquingKeysWith: { $1 })),
        ])
    }
}
