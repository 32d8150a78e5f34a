import Base
import Streams

/// The point-in-time join of one view: every key's events are folded once in the order of their times, and its rows read
/// on the way.
struct ViewJoin {
    let read: FeaturePlan.Read
    let events: PointInTimeJoin.ViewEvents
    let rule: PointInTimeJoin.Rule
    let rows: JoinRows

    /// Columns of the read's features, in their order.
    func columns() -> [FeatureColumn] {
        let count = rows.times.count
        var columns = read.features.map { feature, _ in
            var column = FeatureColumn(
                reference: FeatureReference(view: read.view.name, feature: read.view.aggregates[feature].name))
            column.values = Array(repeating: .nan, count: count)
            column.statuses = Array(repeating: .notFound, count: count)
            column.times = Array(repeating: nil, count: count)
            return column
        }
        let keys = rows.keys[read.keyName] ?? []
        let numbers = keys.map { $0.flatMap { events.numbers[ExactText($0)] } ?? -1 }
        let byKey = groups(events.keys)
        let rowsByKey = groups(numbers)
        // An event that says itself when it became known counts by that; else rows and events are in one order.
        let isByPlace = rule == .known && events.knownTimes.isEmpty
        var row: [Double] = []
        var folding = [Double](repeating: 0, count: events.columnCount)
        for key in 0..<events.numbers.count {
            let asking = sorted(Array(rowsByKey.members[rowsByKey.range(key)]), rows.times) { rows.places[$0] }
            guard !asking.isEmpty else { continue }
            let mine = folded(Array(byKey.members[byKey.range(key)]))
            var state = WindowState(columnCount: events.columnCount)
            var next = 0
            var least: KnownLeast?
            // The newest that anything folded so far became known.
            var (place, known) = (UInt64.min, Int64.min)
            for asked in asking {
                let (now, own) = (rows.times[asked], rows.places[asked])
                var end: Int?
                while next < mine.count, events.times[mine[next]] <= now {
                    let event = mine[next]
                    if isByPlace, events.times[event] == now, events.places[event] >= own {
                        // What came after the row stands behind what came before it, unless partitions mix them.
                        end = tieEnd(mine, next, own)
                        break
                    }
                    add(event, to: &state, &folding)
                    if let time = isByPlace ? nil : events.knownTimes[event] {
                        known = max(known, time)
                    } else {
                        place = max(place, events.places[event])
                    }
                    next += 1
                }
                row.removeAll(keepingCapacity: true)
                let isClean =
                    end == nil && (rule == .eventTime || next == 0 || (place < own && known <= now))
                    && (isByPlace || !isOwn(among: mine[..<next], asked))
                if isClean {
                    tell(&state, now, asked, &row, &columns)
                } else {
                    let known = least ?? KnownLeast(mine, events)
                    least = known
                    var exact = self.exact(mine[..<(end ?? next)], asked, known, &folding)
                    tell(&exact, now, asked, &row, &columns)
                }
            }
        }
        return columns
    }

    private struct Groups {
        let members: [Int]
        let starts: [Int]

        func range(_ group: Int) -> Range<Int> { starts[group]..<starts[group + 1] }
    }

    /// - Parameter row: is overwritten; one for all, since nothing may be allocated for each event.
    private func add(_ event: Int, to state: inout WindowState, _ row: inout [Double]) {
        let from = event * events.columnCount
        for column in row.indices { row[column] = events.values[from + column] }
        state.add(
            time: events.times[event], row: row, texts: events.texts.isEmpty ? [] : events.texts[event] ?? [],
            plan: read.view.plan)
    }

    /// The row's own event stands at its own time, so at the end.
    private func isOwn(among folded: ArraySlice<Int>, _ asked: Int) -> Bool {
        for event in folded.reversed() {
            guard events.times[event] == rows.times[asked] else { return false }
            if events.places[event] == rows.places[asked] { return true }
        }
        return false
    }

    /// Where the events of one time end, when some of them from there on were appended before the row; else nil.
    private func tieEnd(_ mine: [Int], _ next: Int, _ own: UInt64) -> Int? {
        let now = events.times[mine[next]]
        var end = next
        var isMixed = false
        while end < mine.count, events.times[mine[end]] == now {
            isMixed = isMixed || events.places[mine[end]] < own
            end += 1
        }
        return isMixed ? end : nil
    }

    private func counts(_ event: Int, _ asked: Int) -> Bool {
        guard events.places[event] != rows.places[asked] else { return false }
        guard rule == .known else { return true }
        if let time = events.knownTimes[event] { return time <= rows.times[asked] }
        return events.places[event] < rows.places[asked]
    }

    /// A state of those events alone that count for a row: of the longest window, and the newest of all.
    private func exact(
        _ folded: ArraySlice<Int>, _ asked: Int, _ least: KnownLeast, _ row: inout [Double]
    ) -> WindowState {
        let limit = rows.times[asked] - read.view.longestSpan
        var chosen: [Int] = []
        var at = folded.endIndex
        while at > folded.startIndex {
            let event = folded[at - 1]
            guard events.times[event] > limit || chosen.isEmpty else { break }
            // Behind the window only the newest that counts is looked for, which may be far back.
            if events.times[event] <= limit, rule == .known,
                let start = least.blockWithout(before: at, place: rows.places[asked], time: rows.times[asked])
            {
                at = start
                continue
            }
            if counts(event, asked) { chosen.append(event) }
            at -= 1
        }
        var state = WindowState(columnCount: events.columnCount)
        for event in chosen.reversed() { add(event, to: &state, &row) }
        return state
    }

    private func tell(
        _ state: inout WindowState, _ now: Int64, _ asked: Int, _ row: inout [Double], _ columns: inout [FeatureColumn]
    ) {
        guard state.lastTime != .min else { return }
        let isFresh = read.view.isFresh(state.lastTime, at: now)
        if isFresh { state.read(read.view.plan, at: now, into: &row) }
        for (place, (feature, _)) in read.features.enumerated() {
            columns[place].times[asked] = state.lastTime
            guard isFresh else {
                columns[place].statuses[asked] = .outsideMaxAge
                continue
            }
            columns[place].values[asked] = row[feature]
            let text = row[feature].isNaN ? read.view.text(feature, &state, at: now) : nil
            if let text {
                if columns[place].texts.isEmpty {
                    columns[place].texts = Array(repeating: nil, count: rows.times.count)
                }
                columns[place].texts[asked] = text
            }
            columns[place].statuses[asked] = row[feature].isNaN && text == nil ? .null : .present
        }
    }

    /// Members by group, each group in one run and in its own order; members of no group (negative) are left out.
    private func groups(_ numbers: [Int32]) -> Groups {
        var starts = [Int](repeating: 0, count: events.numbers.count + 1)
        for number in numbers where number >= 0 { starts[Int(number) + 1] += 1 }
        for index in 1..<starts.count { starts[index] += starts[index - 1] }
        var next = starts
        var members = [Int](repeating: 0, count: starts[starts.count - 1])
        for (member, number) in numbers.enumerated() where number >= 0 {
            members[next[Int(number)]] = member
            next[Int(number)] += 1
        }
        return Groups(members: members, starts: starts)
    }

    /// Events of a key as a fold takes them; they stand by partition and offset already.
    private func folded(_ members: [Int]) -> [Int] {
        let late = events.lateTurns
        guard !late.isEmpty else { return sorted(members, events.times) { UInt64($0) } }
        return members.sorted { left, right in
            guard events.times[left] == events.times[right] else { return events.times[left] < events.times[right] }
            return LateTurn.precedes(late[left], late[right]) ?? (left < right)
        }
    }

    /// By time, and at equal times in the order of the tie-breaker. Most come sorted already.
    private func sorted(_ members: [Int], _ times: [Int64], _ tie: (Int) -> UInt64) -> [Int] {
        func precedes(_ left: Int, _ right: Int) -> Bool {
            times[left] == times[right] ? tie(left) < tie(right) : times[left] < times[right]
        }
        for index in members.indices.dropFirst() where precedes(members[index], members[index - 1]) {
            return members.sorted(by: precedes)
        }
        return members
    }
}

/// The least place, and the earliest time of becoming known, among every run of events of one key: a run in which nothing
/// counts is stepped over whole.
struct KnownLeast {
    private static let block = 128
    private var places: [UInt64] = []
    private var times: [Int64] = []

    init(_ mine: [Int], _ events: PointInTimeJoin.ViewEvents) {
        for (at, event) in mine.enumerated() {
            if at % KnownLeast.block == 0 {
                places.append(.max)
                times.append(.max)
            }
            let last = places.count - 1
            if let time = events.knownTimes[event] {
                times[last] = min(times[last], time)
            } else {
                places[last] = min(places[last], events.places[event])
            }
        }
    }

    /// The start of the block that ends there, when nothing in it counts for a row.
    func blockWithout(before end: Int, place: UInt64, time: Int64) -> Int? {
        guard end % KnownLeast.block == 0, end > 0 else { return nil }
        let block = end / KnownLeast.block - 1
        return places[block] >= place && times[block] > time ? block * KnownLeast.block : nil
    }
}
