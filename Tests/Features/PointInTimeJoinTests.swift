import Base
import Catalog
import Features
import Testing

/// The point-in-time join against one that goes through all events for every row.
@Suite struct PointInTimeJoinTests {
    private static let definition = #"""
        {"name": "v", "topic": "t", "key": "data.k", "filter": "data.x != 13.0", "ttl": "TTL", "lateness": "20s", "aggregates": [
          {"name": "n", "function": "count", "window": "60s"}, {"name": "s", "function": "sum", "of": "data.x", "window": "60s"},
          {"name": "m", "function": "mean", "of": "data.x", "window": "10s"},
          {"name": "lo", "function": "min", "of": "data.x", "window": "60s"},
          {"name": "hi", "function": "max", "of": "data.x", "window": "10s"},
          {"name": "d", "function": "distinct", "of": "data.x", "window": "60s"},
          {"name": "f", "function": "first", "of": "data.x", "window": "60s"},
          {"name": "l", "function": "last", "of": "data.x"}, {"name": "c", "function": "last", "of": "data.c"},
          {"name": "since", "function": "secondsSince"},
          {"name": "x", "function": "lastN", "n": 2, "of": "data.x", "window": "60s"},
          {"name": "t", "function": "topK", "k": 2, "of": "data.c", "window": "60s"}]}
        """#

    private struct Event {
        let key: String
        let time: Int64
        let place: UInt64
        let partition: Int
        let known: Int64?
        /// Of one that its partition had gone beyond when it came.
        let late: LateTurn?
        let x: Double?
        let colour: String?
    }

    private static func view(_ ttl: String) throws -> FeatureView {
        let body = try JSON(parsing: [UInt8](definition.replacingOccurrences(of: "TTL", with: ttl).utf8))
        return try FeatureView(Definition(kind: FeatureView.kind, name: "v", body: body))
    }

    /// Two of them look the same.
    private static let keys = ["a", "\u{E9}", "e\u{301}"]

    /// Events in the order in which they were appended: some late, some corrected (the same key and time again), some with
    /// a time of their own at which they became known.
    private static func events(_ random: inout SeededRandom) -> [Event] {
        var clock: Int64 = 1_000_000
        let partitions = Int.random(in: 1...3, using: &random)
        let isSlow = Int.random(in: 0...9, using: &random) == 0
        // What each partition was complete through, and the newest round in it.
        var progress = Array(repeating: (through: Int64(0), round: Int64(0)), count: partitions)
        return (0..<Int.random(in: 5...(isSlow ? 600 : 120), using: &random)).map { number in
            clock += Int64.random(in: 0...(isSlow ? 600 : 9000), using: &random)
            let late = Int.random(in: 0...4, using: &random) == 0 ? Int64.random(in: 0...70_000, using: &random) : 0
            let time = (clock - late) / 1000 * 1000
            let later = [0, Int64.random(in: 0...30_000, using: &random), 3_000_000]
            let known: Int64? =
                Int.random(in: 0...6, using: &random) == 0
                ? time + later[Int.random(in: 0..<3, using: &random)] : nil
            let partition = Int.random(in: 0..<partitions, using: &random)
            if Int.random(in: 0...3, using: &random) == 0 {
                let through = (clock - 20_000 + Int64.random(in: 0...19_000, using: &random)) / 1000 * 1000
                progress[partition].through = max(progress[partition].through, through)
                progress[partition].round += Int64.random(in: 0...1, using: &random)
            }
            let (through, round) = progress[partition]
            return Event(
                key: keys.randomElement(using: &random) ?? "a", time: time, place: UInt64(number * 2),
                partition: partition, known: known,
                late: time > through ? nil : LateTurn(through: Instant(milliseconds: through), round: round),
                x: Int.random(in: 0...5, using: &random) == 0 ? nil : Double(Int.random(in: 0...15, using: &random)),
                colour: ["red", "blue", "green", nil].randomElement(using: &random) ?? nil)
        }
    }

    /// Values of one row, NaN for what is missing; nil when nothing was ever known of the key.
    private static func oracle(
        _ events: [Event], _ key: String, _ now: Int64, _ place: UInt64, isKnown: Bool
    ) -> (values: [Double], texts: [Int: String], last: Int64)? {
        let mine = events.filter { event in
            guard event.key.utf8.elementsEqual(key.utf8), event.time <= now, event.x != 13, event.place != place else {
                return false
            }
            // Twenty seconds behind is not too late.
            if let late = event.late, late.through - event.time > 20_000 { return false }
            return !isKnown || (event.known.map { $0 <= now } ?? (event.place < place))
        }.sorted { left, right in
            func order(_ event: Event) -> [Int64] {
                [
                    event.time, event.late?.through ?? -1, event.late?.round ?? -1, Int64(event.partition),
                    Int64(event.place),
                ]
            }
            return order(left).lexicographicallyPrecedes(order(right))
        }
        guard let newest = mine.last else { return nil }
        func window(_ span: Int64) -> [Event] { mine.filter { $0.time > now - span } }
        func values(_ span: Int64) -> [Double] { window(span).compactMap(\.x) }
        let minute = values(60_000)
        let ten = values(10_000)
        let found: [Double] = [
            Double(window(60_000).count), minute.isEmpty ? .nan : minute.reduce(0, +),
            ten.isEmpty ? .nan : ten.reduce(0, +) / Double(ten.count), minute.min() ?? .nan, ten.max() ?? .nan,
            Double(Set(minute).count), window(60_000).first.map { $0.x ?? .nan } ?? .nan, newest.x ?? .nan, .nan,
            Double(now - newest.time) / 1000, minute.last ?? .nan, minute.dropLast().last ?? .nan, .nan, .nan,
        ]
        var counts: [String: Int] = [:]
        for colour in window(60_000).compactMap(\.colour) { counts[colour, default: 0] += 1 }
        let ranked = counts.sorted { $0.value == $1.value ? $0.key < $1.key : $0.value > $1.value }.map(\.key)
        var texts: [Int: String] = [:]
        texts[8] = newest.colour
        if let first = ranked.first { texts[12] = first }
        if ranked.count > 1 { texts[13] = ranked[1] }
        return (found, texts, newest.time)
    }

    @Test(arguments: 0..<300) func equalsTheOracle(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(seed) &+ 9001)
        let isKnown = seed % 3 != 0
        let ttl: Int64 = seed % 2 == 0 ? 30_000 : 3_600_000
        let events = Self.events(&random)
        let view = try Self.view("\(ttl / 1000)s")
        let catalog = FeatureCatalog(views: [view], entities: [], services: [], versions: [:])
        var join = PointInTimeJoin(
            plan: try catalog.plan(service: nil, features: ["v"]), rule: isKnown ? .known : .eventTime)
        // Partitions are read apart; those of one key mix.
        for partition in 0..<3 {
            var reader = join.reader(of: "t")
            let document = JSONDocument()
            for event in events where event.partition == partition {
                let x = event.x.map { JSON.double($0) } ?? .null
                let colour = event.colour.map { JSON.string($0) } ?? .null
                let data = JSON.object(["k": .string(event.key), "x": x, "c": colour]).canonical
                try data.withUnsafeBytes { try document.parse($0) }
                reader.add(
                    document, time: Instant(milliseconds: event.time), place: event.place,
                    knownTime: event.known.map { Instant(milliseconds: $0) }, late: event.late,
                    position: "t/\(partition)")
            }
            // A filter over a null is an error of that row alone.
            #expect(reader.failures == 0)
            join.take(reader)
        }
        // Rows are events of their own, or the view's events themselves, in any order of times.
        var rows = JoinRows()
        rows.keys["k"] = []
        for _ in 0..<60 {
            let event = events.randomElement(using: &random) ?? events[0]
            let isOwn = Int.random(in: 0...3, using: &random) == 0
            rows.times.append(isOwn ? event.time : event.time + Int64.random(in: -5...80, using: &random) * 1000)
            rows.places.append(isOwn ? event.place : UInt64(Int.random(in: 0...events.count, using: &random) * 2 + 1))
            let key =
                Int.random(in: 0...9, using: &random) == 0
                ? nil : isOwn ? event.key : (Self.keys + ["z"]).randomElement(using: &random)
            rows.keys["k"]?.append(key)
        }
        let columns = try join.join(rows).columns
        for row in rows.times.indices {
            let now = rows.times[row]
            let key = rows.keys["k"]?[row]
            let expected = key.flatMap { Self.oracle(events, $0, now, rows.places[row], isKnown: isKnown) }
            for (number, column) in columns.enumerated() {
                let isFresh = expected.map { $0.last >= now - ttl } ?? true
                let value = isFresh ? expected?.values[number] ?? .nan : .nan
                let text = isFresh ? expected?.texts[number] : nil
                let status: FeatureStatus =
                    expected == nil
                    ? .notFound : !isFresh ? .outsideMaxAge : value.isNaN && text == nil ? .null : .present
                let found = column.values[row]
                #expect(
                    (found == value || found.isNaN && value.isNaN) && column.statuses[row] == status
                        && (column.texts.isEmpty ? nil : column.texts[row]) == text
                        && column.times[row] == expected?.last,
                    "seed \(seed), row \(row), \(column.reference.text): \(found) \(column.statuses[row]), not \(value) \(status)"
                )
            }
        }
    }
}
