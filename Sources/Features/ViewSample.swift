import Base
import Streams

/// The events of a sample of one view's keys, as somebody reads them from the log apart from the fold, and the features that
/// they give: what is served must be the same to the bit.
///
/// The keys are those with the smallest hashes, so a key that is in the sample was in it from its first event on, and every key
/// is as likely to be.
package struct ViewSample {
    private struct Entry {
        let time: Int64
        let late: LateTurn?
        let partition: Int
        let offset: Int64
        let row: [Double]
        let texts: [String?]
    }

    /// What a view holds for a key at a moment.
    package struct Vector: Sendable {
        package let values: [Double]
        package let texts: [String?]
        package let lastTime: Int64

        /// The first feature in which two differ, to the bit.
        package func firstDifference(_ other: Vector) -> Int? {
            values.indices.first { index in
                let (a, b) = (values[index], other.values[index])
                return a.bitPattern != b.bitPattern && !(a.isNaN && b.isNaN) || texts[index] != other.texts[index]
            }
        }
    }

    package let view: FeatureView
    private let size: Int
    private var entries: [ExactText: [Entry]] = [:]
    private var hashes: [(hash: UInt64, key: ExactText)] = []
    /// The smallest hash of a key that was ever turned away: above it no key is whole.
    private var bound = UInt64.max
    /// Too many keys have too many events in their windows.
    package private(set) var isOverloaded = false
    /// Keys that were left out for having too many events.
    private var excluded: Set<ExactText> = []
    private var total = 0
    /// The moment that was last asked for.
    private var asked = Int64.max
    /// Of any key's events.
    package private(set) var newest: Int64 = .min
    private var row: [Double] = []
    private var texts: [String?] = []

    /// Keys of a sample.
    package static let size = 100
    /// Events that a sample keeps; beyond it the busiest key is left out.
    private static let eventLimit = 200_000
    private static let excludedLimit = 10_000

    package init(_ view: FeatureView, size: Int = ViewSample.size) { (self.view, self.size) = (view, size) }

    private static func hash(_ key: String) -> UInt64 {
        var key = key
        return key.withUTF8 { stableHash(UnsafeRawBufferPointer($0), seed: 17) }
    }

    /// Keys whose vectors can be told.
    package var keys: [String] { hashes.map(\.key.text) }

    /// Whether every event of a key would be in the sample.
    package func covers(_ key: String) -> Bool {
        let exact = ExactText(key)
        if entries[exact] != nil { return true }
        guard !excluded.contains(exact) else { return false }
        let hash = Self.hash(key)
        return hash < bound && (hashes.count < size || hash < (hashes.last?.hash ?? 0))
    }

    /// Takes an event that the fold takes as well; what the view cannot read is in neither.
    package mutating func take(
        _ document: JSONDocument, time: Instant, late: LateTurn? = nil, partition: Int, offset: Int64
    ) {
        var scope = CELContext(document: document)
        guard let key = try? view.read(&scope, row: &row, texts: &texts) else { return }
        newest = max(newest, time.milliseconds)
        guard !isOverloaded else { return }
        guard covers(key) else {
            bound = min(bound, Self.hash(key))
            return
        }
        let exact = ExactText(key)
        if entries[exact] == nil {
            let hash = Self.hash(key)
            hashes.insert((hash, exact), at: hashes.firstIndex { $0.hash > hash } ?? hashes.count)
            if hashes.count > size {
                bound = min(bound, hashes[hashes.count - 1].hash)
                remove(hashes.count - 1)
            }
        }
        entries[exact, default: []].append(
            Entry(
                time: time.milliseconds, late: late, partition: partition, offset: offset, row: row, texts: texts))
        total += 1
        if total > Self.eventLimit { shrink() }
    }

    private mutating func remove(_ place: Int) {
        total -= entries.removeValue(forKey: hashes[place].key)?.count ?? 0
        hashes.remove(at: place)
    }

    private mutating func shrink() {
        for key in Array(entries.keys) { trim(key) }
        guard excluded.count < Self.excludedLimit else {
            (isOverloaded, entries, hashes, total) = (true, [:], [], 0)
            return
        }
        guard total > Self.eventLimit / 2,
            let busiest = hashes.indices.max(by: { count(hashes[$0].key) < count(hashes[$1].key) })
        else { return }
        excluded.insert(hashes[busiest].key)
        remove(busiest)
    }

    private func count(_ key: ExactText) -> Int { entries[key]?.count ?? 0 }

    /// Sorts a key's events as a fold takes them, and lets go of what no window reaches any more, but for the newest.
    private mutating func trim(_ key: ExactText) {
        guard var list = entries[key] else { return }
        total -= list.count
        list.sort { left, right in
            guard left.time == right.time else { return left.time < right.time }
            return LateTurn.precedes(left.late, right.late)
                ?? ((left.partition, left.offset) < (right.partition, right.offset))
        }
        let limit = min(list.last?.time ?? 0, asked) - view.longestSpan
        let first = min(list.firstIndex { $0.time > limit } ?? list.count, list.count - 1)
        entries[key] = Array(list[max(0, first)...])
        total += entries[key]?.count ?? 0
    }

    /// Whether a key has an event from a moment on, up to another.
    package func hasEvent(_ key: String, from: Instant, through: Instant) -> Bool {
        entries[ExactText(key)]?.contains { $0.time >= from.milliseconds && $0.time <= through.milliseconds } ?? false
    }

    /// The features of a key as of a moment, of the events so far; nil when there was none.
    package mutating func vector(_ key: String, at now: Instant) -> Vector? {
        let exact = ExactText(key)
        asked = now.milliseconds
        trim(exact)
        let list = (entries[exact] ?? []).filter { $0.time <= now.milliseconds }
        guard !list.isEmpty else { return nil }
        var state = WindowState(columnCount: view.columns.count)
        for entry in list { state.add(time: entry.time, row: entry.row, texts: entry.texts, plan: view.plan) }
        return view.vector(&state, at: now)
    }
}

extension FeatureView {
    fileprivate func vector(_ state: inout WindowState, at now: Instant) -> ViewSample.Vector {
        var values = [Double](repeating: .nan, count: aggregates.count)
        var texts = [String?](repeating: nil, count: aggregates.count)
        if isFresh(state.lastTime, at: now.milliseconds) {
            values = state.read(plan, at: now.milliseconds)
            for place in aggregates.indices where values[place].isNaN {
                texts[place] = text(place, &state, at: now.milliseconds)
            }
        }
        return ViewSample.Vector(values: values, texts: texts, lastTime: state.lastTime)
    }
}

extension FeatureStage {
    /// What is served of a key as of a moment; nil when nothing was seen of it. Changes nothing.
    /// - Throws: `view-changed` where it folds another version.
    package func vector(
        _ view: FeatureView, _ key: String, at now: Instant
    ) throws(FeaturesError) -> ViewSample.Vector? {
        try requireSame(view)
        guard let store = store(of: view.name) else { return nil }
        return store.inspect(key) { view.vector(&$0, at: now) }
    }
}
