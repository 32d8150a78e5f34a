import Base
import Foundation
import Testing

@Suite struct JSONProjectionTests {
    private static let keys = [
        "a", "b", "carrier", "dep_delay", "a_long_key_name", "ü", "q\"\\", "", "x\u{301}", "\u{0}",
    ]

    private static func key(_ random: inout SeededRandom) -> String {
        keys[Int.random(in: 0..<keys.count, using: &random)]
    }

    /// A key as JSON, now and then with escapes where none are needed.
    private static func quoted(_ key: String, _ random: inout SeededRandom) -> [UInt8] {
        var out: [UInt8] = []
        if Int.random(in: 0..<5, using: &random) > 0 {
            JSONString.append(key, to: &out)
            return out
        }
        for unit in key.utf16 { out += [UInt8]("\\u\(String(format: "%04x", unit))".utf8) }
        return [0x22] + out + [0x22]
    }

    private static func document(_ random: inout SeededRandom, _ depth: Int) -> [UInt8] {
        guard depth < 4, Int.random(in: 0..<4, using: &random) > 0 || depth == 0 else {
            return BaseTests.randomJSON(&random, depth)
        }
        var out: [UInt8] = [0x7B]
        for index in 0..<Int.random(in: 0..<7, using: &random) {
            if index > 0 { out.append(0x2C) }
            if Bool.random(using: &random) { out += [0x20, 0x0A] }
            out += quoted(key(&random), &random) + [0x3A] + document(&random, depth + 1)
        }
        return out + [0x7D]
    }

    /// Against the whole parser, and against Foundation: random texts, also damaged ones, and random paths. The same texts
    /// are taken, the same values found.
    @Test(arguments: 0..<20) func picksWhatTheWholeParserFinds(seed: Int) throws {
        var random = SeededRandom(seed: UInt64(1000 + seed))
        let whole = JSONDocument()
        for _ in 0..<60 {
            // Keys of one object with their bytes compared one by one, as `duplicateKey` must find them.
            var text: [UInt8] = [0x7B]
            var names: [String] = []
            for index in 0..<Int.random(in: 0..<5, using: &random) {
                names.append(Self.key(&random))
                text += (index > 0 ? [0x2C] : []) + Self.quoted(names[index], &random) + [0x3A, 0x31]
            }
            try whole.parse(text + [0x7D])
            let twice = names.filter { name in names.count { $0.utf8.elementsEqual(name.utf8) } > 1 }
            #expect(
                whole.duplicateKey().map { found in twice.contains { $0.utf8.elementsEqual(found.utf8) } }
                    ?? twice.isEmpty)
            let paths = (0..<Int.random(in: 1..<8, using: &random)).map { _ in
                (0..<Int.random(in: 0..<4, using: &random)).map { _ in JSONKey(Self.key(&random)) }
            }
            var projection = try JSONProjection(paths)
            for _ in 0..<30 {
                var text = Self.document(&random, 0)
                if Int.random(in: 0..<3, using: &random) == 0 { BaseTests.damage(&text, &random) }
                let isTaken = (try? whole.parse(text)) != nil
                let found = text.withUnsafeBytes { raw in (try? projection.project(raw)) != nil }
                #expect(found == isTaken, "\(String(decoding: text, as: UTF8.self))")
                guard found, isTaken else { continue }
                let reference = try? JSONSerialization.jsonObject(with: Data(text), options: [.fragmentsAllowed])
                for (number, path) in paths.enumerated() {
                    expectSame(text, projection.slot(number), path, whole, reference)
                }
            }
        }
    }

    private func expectSame(
        _ text: [UInt8], _ slot: JSONProjection.Slot, _ path: [JSONKey], _ whole: JSONDocument, _ reference: Any?
    ) {
        var node: Int? = 0
        for key in path { node = node.flatMap { whole.member($0, key) } }
        let place = "\(path.map(\.text)) in \(String(decoding: text, as: UTF8.self))"
        #expect(slot.kind == node.map { whole.kind($0) }, "\(place)")
        guard let node, slot.kind != nil else { return }
        text.withUnsafeBytes { raw in
            #expect(
                slot.string(in: raw).map { Array($0.utf8) } == whole.string(node).map { Array($0.utf8) }, "\(place)")
            #expect(slot.double(in: raw) == whole.double(node) && slot.int(in: raw) == whole.int(node), "\(place)")
            #expect(slot.bytes(in: raw).elementsEqual(whole.raw(node)), "\(place)")
        }
        // Foundation keeps the last of a key that stands twice, so only texts without one are compared with it.
        guard whole.duplicateKey() == nil, let reference, let value = try? whole.value(node) else { return }
        var theirs: Any? = reference
        for key in path { theirs = (theirs as? [String: Any])?[key.text] }
        #expect(theirs.map { BaseTests.same(value, $0) } == true, "\(place)")
    }

    /// A large object is checked in time that grows with it, not with its square.
    @Test func manyKeysAreComparedOnce() throws {
        let document = JSONDocument()
        let keys = (0..<200_000).map { #""k\#($0)":0"# }.joined(separator: ",")
        let begun = Date()
        try document.parse([UInt8]("{\(keys)}".utf8))
        #expect(document.duplicateKey() == nil && Date().timeIntervalSince(begun) < 5)
        try document.parse([UInt8](#"{\#(keys),"k7":1}"#.utf8))
        #expect(document.duplicateKey() == "k7")
    }

    @Test func edges() throws {
        #expect(throws: BaseError.self) {
            try JSONProjection((0...JSONProjection.edgeLimit).map { [JSONKey("k\($0)")] })
        }
        // The value of a path and of one below it, twice the same path, and the first of a key that stands twice.
        var projection = try JSONProjection([["a"], ["a", "b"], ["a"], [], ["a", "b", "c"]])
        let text = #"{"a":{"b":[1,{"b":2}],"b":3},"a":4}"#
        var copy = text
        try copy.withUTF8 { raw in
            let bytes = UnsafeRawBufferPointer(raw)
            try projection.project(bytes)
            #expect(projection.slot(0).bytes(in: bytes).elementsEqual(#"{"b":[1,{"b":2}],"b":3}"#.utf8))
            #expect(projection.slot(1).bytes(in: bytes).elementsEqual(#"[1,{"b":2}]"#.utf8))
            #expect(projection.slot(2).kind == .object && projection.slot(3).bytes(in: bytes).count == text.utf8.count)
            #expect(projection.slot(4).kind == nil)
        }
        // As deep as the parser goes, and one deeper.
        for (depth, isTaken) in [(Limits.jsonDepth, true), (Limits.jsonDepth + 1, false)] {
            for (open, close) in [("[", "]"), (#"{"b":"#, "}")] {
                let inner = open == "[" ? "" : "1"
                let nested =
                    #"{"a":"# + String(repeating: open, count: depth - 1) + inner
                    + String(repeating: close, count: depth - 1) + "}"
                let bytes = [UInt8](nested.utf8)
                #expect(((try? JSONDocument().parse(bytes)) != nil) == isTaken)
                #expect(bytes.withUnsafeBytes { (try? projection.project($0)) != nil } == isTaken)
            }
        }
    }
}
