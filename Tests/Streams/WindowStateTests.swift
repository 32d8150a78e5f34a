import Base
import Catalog
import Features
import Foundation
import Streams
import Testing

@Suite struct WindowStateTests {
    /// Random events, late ones among them, reads in between, state encoded and decoded at random moments: every value equals
    /// a recount over all events with (t - span, t].
    @Test(arguments: 0..<30) func windowsAreRecounts(seed: Int) throws {
        let text = """
            kind: FeatureView
            name: v
            topic: t
            key: data.k
            aggregates:
              - {name: n, function: count, window: 10s}
              - {name: s, function: sum, of: data.x, window: 10s}
              - {name: m, function: mean, of: data.x, window: 3s}
              - {name: lo, function: min, of: data.x, window: 3s}
              - {name: hi, function: max, of: data.x, window: 10s}
              - {name: l, function: last, of: data.x}
              - {name: since, function: secondsSince}
              - {name: v, function: variance, of: data.x, window: 10s}
              - {name: d, function: stddev, of: data.x, window: 3s}
              - {name: median, function: quantile, q: 0.5, of: data.x, window: 10s}
              - {name: f, function: first, of: data.x, window: 3s}
              - {name: u, function: distinct, of: data.x, window: 10s}
              - {name: lo10, function: min, of: data.x, window: 10s}
            """
        let view = try FeatureView(try Workspace.parse(text, file: "v.yaml")[0])
        var random = SeededRandom(seed: UInt64(seed))
        var state = WindowState(columnCount: 2)
        var events: [(time: Int64, x: Double)] = []
        var now: Int64 = 100_000
        for _ in 0..<400 {
            now += [0, 0, 250, 1000, 1000, 7000][Int.random(in: 0..<6, using: &random)]
            if Bool.random(using: &random) {
                let x =
                    Int.random(in: 0..<6, using: &random) == 0
                    ? Double.nan : Double(Int.random(in: -50...50, using: &random)) / 8
                // The second column is the value's identity; here the value itself does.
                state.add(time: now, row: [x, x], plan: view.plan)
                events.append((now, x))
            }
            if Int.random(in: 0..<10, using: &random) == 0 {
                var writer = ByteWriter()
                state.encode(into: &writer)
                try writer.bytes.withUnsafeBytes { raw in
                    var reader = ByteReader(raw)
                    state = try WindowState(decoding: &reader)
                }
                var again = ByteWriter()
                state.encode(into: &again)
                #expect(again.bytes == writer.bytes)
            }
            let got = state.read(view.plan, at: now)
            func window(_ span: Int64) -> [Double] { events.filter { $0.time > now - span && $0.time <= now }.map(\.x) }
            let ten = window(10_000).filter { !$0.isNaN }
            let three = window(3000).filter { !$0.isNaN }
            let sum: Double = ten.isEmpty ? .nan : ten.reduce(0, +)
            let mean: Double = three.isEmpty ? .nan : three.reduce(0, +) / Double(three.count)
            let since: Double = events.last.map { Double(now - $0.time) / 1000 } ?? .nan
            var expected: [Double] = [Double(window(10_000).count), sum, mean]
            expected += [three.min() ?? .nan, ten.max() ?? .nan, events.last?.x ?? .nan, since]
            func variance(_ values: [Double]) -> Double {
                guard values.count > 1 else { return .nan }
                // Eighths and their squares are exact in a double, so this is the rational result, rounded twice.
                let (sum, squares) = (values.reduce(0, +), values.reduce(0) { $0 + $1 * $1 })
                let count = Double(values.count)
                return (squares * count - sum * sum) / count / (count - 1)
            }
            let sorted = ten.sorted()
            let middle = ten.isEmpty ? [] : [sorted[(ten.count - 1) / 2], sorted[ten.count / 2]]
            let median: Double = ten.isEmpty ? .nan : (middle[0] + middle[1]) / 2
            expected += [variance(ten), variance(three).squareRoot(), median, window(3000).first ?? .nan]
            expected += [Double(Set(ten).count), ten.min() ?? .nan]
            for (index, (ours, theirs)) in zip(got, expected).enumerated() {
                let tolerance: Double =
                    switch index {
                    case 7, 8: abs(theirs) * 1e-12
                    case 9: middle.reduce(0) { $0 + abs($1) } / 2 / 256
                    default: 0
                    }
                #expect(
                    ours == theirs || (ours.isNaN && theirs.isNaN) || abs(ours - theirs) <= tolerance,
                    "\(index): \(got) \(expected)")
            }
        }
    }

    /// In whatever order events come, and however often the state is restored in between, it ends as if they had come in the order
    /// of their times; of one time, as they came.
    @Test(arguments: 0..<40) func lateEventsTakeTheirPlaces(seed: Int) throws {
        let text = """
            {kind: FeatureView, name: v, topic: t, key: data.k, latest: {c: data.c}, aggregates: [
              {name: n, function: count, window: 40s}, {name: s, function: sum, of: data.x, window: 10s},
              {name: lo, function: min, of: data.x, window: 40s}, {name: hi, function: max, of: data.x, window: 10s},
              {name: f, function: first, of: data.x, window: 10s}, {name: l, function: last, of: data.x},
              {name: since, function: secondsSince}, {name: q, function: quantile, q: 0.9, of: data.x, window: 40s},
              {name: x, function: lastN, n: 3, of: data.x, window: 40s},
              {name: top, function: topK, k: 2, of: data.c, window: 10s}]}
            """
        let view = try FeatureView(try Workspace.parse(text, file: "v.yaml")[0])
        let columns = view.plan.columnCount
        var random = SeededRandom(seed: UInt64(seed) &+ 400)
        func bytes(_ state: WindowState) -> [UInt8] {
            var writer = ByteWriter()
            state.encode(into: &writer)
            return writer.bytes
        }
        let kinds: [String?] = ["red", "blue", nil]
        var came: [(time: Int64, row: [Double], texts: [String?])] = []
        var state = WindowState(columnCount: columns)
        let reach = [500, 15_000, 80_000][seed % 3]
        for number in 0..<400 {
            let clock = Int64(number) * 400
            let lag = Bool.random(using: &random) ? 0 : Int64.random(in: 0...Int64(reach), using: &random) / 500 * 500
            let time = clock - lag
            let kind = Int.random(in: 0..<3, using: &random)
            let x =
                Int.random(in: 0..<5, using: &random) == 0 ? Double.nan : Double(Int.random(in: -9...9, using: &random))
            // The columns: what `latest` reads, the numbers, and texts by the number that stands for them.
            let row = (0..<columns).map {
                view.plan.labelled.contains($0) ? (kinds[kind] == nil ? .nan : Double(kind)) : x
            }
            let texts = (0..<columns).map { view.plan.labelled.contains($0) ? kinds[kind] : nil }
            state.add(time: time, row: row, texts: texts, plan: view.plan)
            came.append((time, row, texts))
            if Int.random(in: 0..<40, using: &random) == 0 {
                state = try bytes(state).withUnsafeBytes { raw in
                    var reader = ByteReader(raw)
                    return try WindowState(decoding: &reader)
                }
            }
            guard Int.random(in: 0..<6, using: &random) == 0 else { continue }
            var straight = WindowState(columnCount: columns)
            let sorted = came.enumerated().sorted { ($0.element.time, $0.offset) < ($1.element.time, $1.offset) }
            for (_, event) in sorted {
                straight.add(time: event.time, row: event.row, texts: event.texts, plan: view.plan)
            }
            let (ours, theirs) = (state.read(view.plan, at: clock), straight.read(view.plan, at: clock))
            let labels = view.plan.readings.indices.map { state.label($0, view.plan, at: clock) }
            #expect(
                ours.map(\.bitPattern) == theirs.map(\.bitPattern) && bytes(state) == bytes(straight)
                    && labels == view.plan.readings.indices.map { straight.label($0, view.plan, at: clock) },
                "\(number): \(ours) \(theirs)")
        }
    }
}
