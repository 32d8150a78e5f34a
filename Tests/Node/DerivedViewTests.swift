import Base
import Catalog
import Datasets
import EventLog
import Features
import Foundation
import Node
import RecordFormat
import Testing

/// Features that are worked out in the moment they are asked for: the same online, as of the past and in datasets.
@Suite struct DerivedViewTests {
    private static let views = """
        kind: Topic
        name: prices
        ---
        kind: Topic
        name: sales
        ---
        kind: FeatureView
        name: price
        topic: prices
        key: data.item
        aggregates: [{name: n, function: count, window: 100d}, {name: mean, function: mean, of: data.price, window: 100d}]
        latest: {price: data.price, colour: data.colour}
        ---

        """
    private static let derived = """
        kind: DerivedView
        name: deal
        owner: shop
        features:
          - {name: off, of: price.price / price.mean}
          - {name: paid, of: request.pieces * price.price}
          - {name: kind, of: "request.gift ? 'gift ' + price.colour : has(price.price) ? 'own' : 'none'"}
        ---
        kind: DerivedView
        name: verdict
        features:
          - {name: dear, of: deal.paid > 50.0 && deal.off >= 1.0}
          - {name: root, of: "math.sqrt(price.n - 2.0) > 0.0 ? int(price.n) / int(price.n - 3.0) : null"}
        ---
        kind: FeatureService
        name: shop
        features: [verdict, "deal:paid", "price:n", "deal:kind"]
        """

    private let scratch: ScratchDirectory
    private static let start = Instant("2024-01-01T00:00:00Z")?.milliseconds ?? 0

    init() throws { scratch = try ScratchDirectory() }

    private func node(_ text: String) throws -> Node {
        let folder = scratch.path + "/workspace-\(UUID().uuidString)"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        try Data(text.utf8).write(to: URL(filePath: folder + "/w.yaml"))
        var settings = NodeConfiguration(
            dataDirectory: folder + "-data", platformTopics: projectDirectory + "/Topics")
        settings.workspace = folder
        return try Node(settings)
    }

    private func publish(_ node: Node, _ topic: String, _ number: Int, _ data: String) async throws {
        let event = NewEvent(
            id: "\(topic)-\(number)", source: "s", type: "t",
            time: Instant(milliseconds: Self.start + Int64(number) * 1000), key: [1], data: [UInt8](data.utf8))
        let verdict = try await node.gateway.publish([(topic, event)], principal: "p").first
        guard case .accepted? = verdict else { throw NodeError("test", "\(String(describing: verdict))") }
    }

    @Test func areTheSameEverywhere() async throws {
        let node = try node(Self.views + Self.derived)
        defer { node.stop() }
        try node.start()
        let prices = [
            (10, "a", #""red""#), (30, "a", #""blue""#), (7, "b", "null"), (20, "a", "null"), (9, "b", "null"),
        ]
        for (number, (price, item, colour)) in prices.enumerated() {
            try await publish(node, "prices", number, #"{"item":"\#(item)","price":\#(price),"colour":\#(colour)}"#)
        }
        let asked: [(item: String, pieces: Double?, gift: Bool)] = [
            ("a", 3, true), ("b", 6, false), ("none", 1, true), ("b", nil, false),
        ]
        for (number, row) in asked.enumerated() {
            let pieces = row.pieces.map { "\($0)" } ?? "null"
            try await publish(
                node, "sales", 100 + number, #"{"item":"\#(row.item)","pieces":\#(pieces),"gift":\#(row.gift)}"#)
        }
        for _ in 0..<500 where !node.isSettled { try await Task.sleep(nanoseconds: 20_000_000) }
        let question = FeatureQuestion(
            service: "shop", features: [],
            entities: [
                ("item", asked.map(\.item)), ("pieces", asked.map { $0.pieces.map { "\($0)" } }),
                ("gift", asked.map { $0.gift ? "true" : "false" }),
            ], isText: [[true, true, true, true], [false, false, false, false], [false, false, false, false]])
        func text(_ columns: [FeatureColumn]) -> [String] {
            columns.map { column in
                let values = column.values.indices.map { row -> String in
                    if row < column.texts.count, let text = column.texts[row] { return text }
                    return column.values[row].isNaN ? column.statuses[row].rawValue : "\(column.values[row])"
                }
                return "\(column.reference.text) \(values.joined(separator: " "))"
            }
        }
        let answer = try await node.onlineFeatures(question)
        let expected = [
            // 3 x 20 = 60 at 20 / 20; 6 x 9 = 54 at 9 / 8.
            "verdict:dear 1.0 1.0 NOT_FOUND NULL_VALUE",
            // n is 3, so it is divided by zero; 2: the root is 0.
            "verdict:root NULL_VALUE NULL_VALUE NOT_FOUND NULL_VALUE",
            "deal:paid 60.0 54.0 NOT_FOUND NULL_VALUE", "price:n 3.0 2.0 NOT_FOUND 2.0",
            "deal:kind NULL_VALUE own NOT_FOUND own",
        ]
        #expect(text(answer.columns) == expected, "\(text(answer.columns))")
        #expect(answer.versions.map(\.view) == ["verdict", "deal", "price"])
        #expect(text(try node.pastOnlineFeatures(question, asOf: "2024-01-01T00:01:00Z").columns) == expected)
        let made = try node.createDataset(
            try JSON(parsing: [UInt8](#"{"name":"d","service":"shop","labels":"sales","fields":["gift"]}"#.utf8)))
        let path = scratch.path + "/rows.csv"
        _ = try node.exportDataset("d", format: "csv", to: path)
        let rows = String(decoding: try Data(contentsOf: URL(filePath: path)), as: UTF8.self).split(separator: "\r\n")
            .map(String.init)
        #expect(
            rows == [
                "event_id,event_time,item,gift,pieces,verdict__dear,verdict__root,deal__paid,price__n,deal__kind",
                "sales-100,2024-01-01T00:01:40Z,a,true,3,1,,60,3,",
                "sales-101,2024-01-01T00:01:41Z,b,false,6,1,,54,2,own",
                "sales-102,2024-01-01T00:01:42Z,none,true,1,,,,,", "sales-103,2024-01-01T00:01:43Z,b,false,,,,,2,own",
            ], "\(rows)")
        #expect(
            made["dataset"]?["notices"]?.text.contains("derived values cannot be worked out, first verdict:root")
                == true
                && made["dataset"]?["definitions"]?.text.contains("view deal@1") == true, "\(made)")
        // What a request does not bring along is named.
        var less = question
        less.entities.removeLast(2)
        #expect(await asyncErrorCode { _ = try await node.onlineFeatures(less) } == "missing-request")
        // It changes at once, and what stands on it is held to that.
        let folder = scratch.path + "/change"
        try FileManager.default.createDirectory(atPath: folder, withIntermediateDirectories: true)
        func apply(_ text: String) throws {
            try Data(text.utf8).write(to: URL(filePath: folder + "/w.yaml"))
            _ = try node.apply(directory: folder)
        }
        let text2 = Self.views + Self.derived
        #expect(
            errorCode { try apply(text2.replacingOccurrences(of: "{name: paid, of", with: "{name: cost, of")) }
                == "unknown-feature")
        try apply(text2.replacingOccurrences(of: "request.pieces * price.price", with: "request.pieces + 1.0"))
        let changed = try await node.onlineFeatures(question)
        #expect(text(changed.columns)[2] == "deal:paid 4.0 7.0 2.0 NULL_VALUE", "\(text(changed.columns))")
        #expect(changed.versions.contains { $0.view == "deal" && $0.version == 2 })
    }

    /// What is wrong is named with its file and line.
    @Test(arguments: [
        ("- {name: x, of: price.nothing}", "unknown-feature", "w.yaml:16"),
        ("- {name: x, of: prices.n}", "unknown-view", "w.yaml:16"),
        ("- {name: x, of: d.y}\n  - {name: y, of: d.x}", "definition-cycle", "d reads d"),
        ("- {name: x, of: price}", "bad-expression", "VIEW.FEATURE"),
        ("- {name: x, of: data.n}", "bad-expression", "no view"),
        ("- {name: x, of: price.n +}", "bad-expression", "w.yaml:17"),
        ("- {name: x, of: price.n}\n  - {name: x, of: price.n}", "bad-definition", "stands twice"),
    ]) func mistakesAreNamed(features: String, code: String, place: String) {
        do {
            let node = try node(Self.views + "kind: DerivedView\nname: d\nfeatures:\n  \(features)\n")
            node.stop()
            Issue.record("\(features) was taken")
        } catch {
            #expect("\(error)".contains(code) && "\(error)".contains(place), "\(error)")
        }
    }
}
