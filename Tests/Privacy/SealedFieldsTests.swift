import Base
import Catalog
import EventLog
import Foundation
import Privacy
import Testing

@Suite struct SealedFieldsTests {
    private static let event = EventIdentity(topic: "customers", source: "headrace:/cli", id: "1")

    private static func fields(_ names: [String]) throws -> [PersonalFields.Field] {
        try names.map { try #require(PersonalFields.Field($0)) }
    }

    /// The example in docs/formats/keys.md: its hexadecimal blocks and the JSON below them.
    private static func example() throws -> (file: [UInt8], data: [UInt8]) {
        let text = try String(contentsOfFile: projectDirectory + "/docs/formats/keys.md", encoding: .utf8)
        let blocks = text.components(separatedBy: "```hex\n").dropFirst().map {
            [UInt8](hex: ($0.components(separatedBy: "```").first ?? "").filter { !$0.isWhitespace }) ?? []
        }
        #expect(blocks.map(\.count) == [64, 256])
        let line = try #require(text.split(separator: "\n").last)
        return (blocks[0] + Array(repeating: 0, count: 448) + blocks[1], [UInt8](line.drop { $0 == " " }.utf8))
    }

    @Test func theDocumentedFileAndValueOpen() throws {
        let scratch = try ScratchDirectory()
        let (file, data) = try Self.example()
        try Data(file).write(to: URL(filePath: scratch.path + "/subject.keys"))
        let store = try KeyStore(DiskVolume(scratch.path))
        let id = try #require(try store.find("alice"))
        #expect(id.description == "2414e89d017585255aada0acb81edde2" && store.counts == (1, 1, 0))
        let alive = try store.state(of: id)
        let opened = SealedFields.open(
            data, of: Self.event, under: id, alive, scratch: JSONDocument())
        #expect(String(decoding: opened, as: UTF8.self) == #"{"email":"a@x.org"}"#)
        let erased = try #require(KeyID("d492037d051a34689ff8e46a468e61cf"))
        let dead = try store.state(of: erased)
        let gone = SealedFields.open(
            data, of: Self.event, under: erased, dead, scratch: JSONDocument())
        let members = try JSON(parsing: gone)["email"]?[SealedFields.erasedMember]
        #expect(members?["key"]?.string == "\(erased)" && members?["at"]?.string == "1970-01-01T00:00:00.002Z")
        // What the store writes is what the page describes.
        #expect(try store.keys(of: ["alice"], at: Instant(milliseconds: 9)).map(\.id) == [id])
    }

    /// Sealed data opens to the very text that was sealed, says nothing of it before, and opens nowhere else.
    @Test(arguments: [
        (["data.email"], #"{"email":"a@x.org","n":1}"#, ["a@x.org"]),
        (["data.a.b"], #"{"a": {"b" : "geheim \"ü\\" , "c": 2}}"#, ["geheim"]),
        (
            ["data.phones.number"], #"{"phones":[{"number":"123-456"},{"kind":"x"},[{"number":"789-0"}]]}"#,
            ["123-456", "789-0"]
        ),
        (["data"], #"[1,{"secret":"geheim"}]"#, ["geheim", "secret"]),
        (["data.a~b/c", "data.list"], #"{"a~b/c":"tilde","list":["one","two"],"x":null}"#, ["tilde", "one"]),
        (
            ["data.a.b", "data.a.c", "data.p.n"], #"{"a":"in the way","p":["one",{"n":"two"},{"m":3}],"q":{"n":4}}"#,
            ["in the way", "one", "two"]
        ),
        (["data.a.b"], #""<xml>""#, ["xml"]),
        (["data.age", "data.gone"], #"{"age":4321234,"gone":null}"#, ["4321234"]),
    ])
    func sealedDataOpensInItsEventOnly(names: [String], text: String, secrets: [String]) throws {
        let scratch = try ScratchDirectory()
        let store = try KeyStore(DiskVolume(scratch.path))
        let keys = try store.keys(of: ["a", "b"], at: Instant(milliseconds: 1))
        let data = [UInt8](text.utf8)
        let document = JSONDocument()
        let sealed = try #require(
            try SealedFields.seal(
                data, try Self.fields(names), of: Self.event, under: keys[0], scratch: document))
        try document.parse(data)
        #expect(SealedFields.sealedSize(try Self.fields(names), in: document) == sealed.count)
        let shown = String(decoding: sealed, as: UTF8.self)
        #expect(secrets.allSatisfy { !shown.contains($0) } && shown.contains(SealedFields.member))
        func opened(_ bytes: [UInt8], _ event: EventIdentity, _ key: SubjectKey) throws -> String {
            let state = try store.state(of: key.id)
            return String(
                decoding: SealedFields.open(bytes, of: event, under: key.id, state, scratch: document), as: UTF8.self)
        }
        #expect(try opened(sealed, Self.event, keys[0]) == text)
        for (event, key) in [
            (EventIdentity(topic: "other", source: "headrace:/cli", id: "1"), keys[0]),
            (EventIdentity(topic: "customers", source: "elsewhere", id: "1"), keys[0]),
            (EventIdentity(topic: "customers", source: "headrace:/cli", id: "2"), keys[0]), (Self.event, keys[1]),
        ] {
            let forged = try opened(sealed, event, key)
            #expect(secrets.allSatisfy { !forged.contains($0) } && forged.contains("does not belong to this event"))
        }
        try store.destroy(keys[0].id, at: Instant(milliseconds: 5))
        let erased = try opened(sealed, Self.event, keys[0])
        #expect(secrets.allSatisfy { !erased.contains($0) } && erased.contains(SealedFields.erasedMember))
        #expect((try? JSON(parsing: [UInt8](erased.utf8))) != nil)
    }

    /// Two values of one event cannot be exchanged, and an altered one is not opened.
    @Test func placesAreBoundToo() throws {
        let scratch = try ScratchDirectory()
        let store = try KeyStore(DiskVolume(scratch.path))
        let key = try store.keys(of: ["a"], at: Instant(milliseconds: 1))[0]
        let sealed = try #require(
            try SealedFields.seal(
                [UInt8](#"{"a":"left","b":"right"}"#.utf8), try Self.fields(["data.a", "data.b"]), of: Self.event,
                under: key, scratch: JSONDocument()))
        var members = try #require(try JSON(parsing: sealed).object)
        (members["a"], members["b"]) = (members["b"], members["a"])
        let state = try store.state(of: key.id)
        let opened = SealedFields.open(
            JSON.object(members).canonical, of: Self.event, under: key.id, state,
            scratch: JSONDocument())
        let text = String(decoding: opened, as: UTF8.self)
        #expect(!text.contains("left") && !text.contains("right"))
        #expect(
            try SealedFields.seal(
                [UInt8](#"{"c":1}"#.utf8), try Self.fields(["data.a"]), of: Self.event, under: key,
                scratch: JSONDocument()) == nil)
    }
}
