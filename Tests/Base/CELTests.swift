import Base
import Foundation
import Testing

@Suite struct CELTests {
    static let data =
        #"{"delay": 12, "tail": null, "origin": "JFK", "at": "2013-07-04T16:30:00Z", "list": [1, 2, 3], "deep": {"x": {"y": true}}}"#

    /// A list of 1,000 ones.
    static let thousand = "'" + String(repeating: "1 ", count: 999) + "1'.split(' ')"

    /// An id keeps its digits, as a key and in a list of what was distinct, and a double keeps its text.
    @Test(arguments: [
        ("1234567890123456", "1234567890123456"), ("9007199254740993", "9007199254740993"), ("-12", "-12"),
        ("12.0", "12"), ("1e3", "1000"), ("0.5", "0.5"), ("1234567890123456789012", "1.2345678901234568e+21"),
        ("true", "true"), ("\"007\"", "007"),
    ]) func idsKeepTheirDigits(json: String, label: String) throws {
        var context = CELContext(document: try JSONDocument(#"{"id": \#(json)}"#))
        #expect(try CELProgram("data.id").label(&context) == label)
    }

    static func evaluate(_ source: String) throws -> CELValue {
        var context = CELContext(document: try JSONDocument(data))
        return try CELProgram(source).evaluate(&context)
    }

    /// Expression and the expression for what it must equal.
    @Test(arguments: [
        ("1 + 2 * 3", "7"), ("(1 + 2) * 3", "9"), ("-7 / 2", "-3"), ("-7 % 3", "-1"), ("7u / 2u", "3u"),
        ("1.0 / 4.0", "0.25"),
        ("data.delay > 10.0 ? 'late' : 'fine'", "'late'"), ("data.delay", "12"), ("data.tail == null", "true"),
        ("data.deep.x.y", "true"),
        ("has(data.tail)", "true"), ("has(data.nope)", "false"), ("data.nope == 1 || true", "true"),
        ("false && data.nope == 1", "false"),
        ("true || data.nope == 1", "true"), ("'JFK' in ['EWR', 'JFK']", "true"),
        ("data.list.map(x, x * 2.0)", "[2.0, 4.0, 6.0]"),
        ("data.list.filter(x, x > 1.0)", "[2.0, 3.0]"), ("data.list.all(x, x > 0.0)", "true"),
        ("data.list.exists(x, x == 3.0)", "true"),
        ("data.list.exists_one(x, x > 2.0)", "true"), ("size('héllo')", "5"), ("size(data.list)", "3"),
        ("data.list[1]", "2"),
        ("{'a': 1, 'b': 2}['b']", "2"), ("'a' + 'b'", "'ab'"), ("[1] + [2]", "[1, 2]"),
        ("b'abc' == bytes('abc')", "true"),
        ("'hello'.startsWith('he') && 'hello'.endsWith('lo') && 'hello'.contains('ell')", "true"),
        ("'a1'.matches('^[a-z][0-9]$')", "true"), ("'é1'.matches('(?i)^É\\\\d$')", "true"), ("''.matches('')", "true"),
        // Would take for ever where matching goes back.
        ("('a' + 'aaaa'.replace('a', 'aaaaaaaaaa') + '!').matches('^(a+)+$')", "false"),
        ("'héllo'.contains('éll') && 'a'.contains('') && !''.contains('a')", "true"),
        ("{'a': 1, 'b': [2]} == {'b': [2.0], 'a': 1u}", "true"), ("{'a': 1} == {'b': 1}", "false"),
        ("{1: 'x', true: 'y'} == {true: 'y', 1u: 'x'}", "true"),
        ("timestamp(data.at).getHours('America/New_York')", "12"),
        ("timestamp(data.at).getDayOfWeek('America/New_York')", "4"),
        ("timestamp(data.at).getFullYear()", "2013"), ("timestamp(data.at).getMonth()", "6"),
        ("timestamp(data.at).getDate()", "4"),
        ("timestamp(data.at).getDayOfMonth()", "3"), ("timestamp(data.at).getDayOfYear()", "184"),
        ("timestamp(data.at) - duration('1h')", "timestamp('2013-07-04T15:30:00Z')"),
        ("duration('1h30m') == duration('5400s')", "true"),
        ("timestamp(data.at) - timestamp('2013-07-04T00:00:00Z')", "duration('16h30m')"),
        ("duration('1.5h').getMinutes()", "90"),
        ("int('42') + int(3.9) + int(2u)", "47"), ("double('1.5')", "1.5"), ("string(12)", "'12'"),
        ("string(1.5)", "'1.5'"),
        ("1 == 1.0", "true"), ("1u == 1", "true"), ("9007199254740993 == 9007199254740992.0", "true"),
        ("dyn(1) != dyn('1')", "true"),
        ("0x1F", "31"), ("'\\u00e9\\x41\\101'", "'éAA'"), ("r'\\n'", "'\\\\n'"), ("'''a\nb'''", "'a\\nb'"),
        ("1 < 2 && 'a' < 'b' && 1.5 >= 1", "true"),
        ("' Tap '.trim().lowerAscii() + 'é'.upperAscii()", "'tapé'"), ("'a,b,,c'.split(',')", "['a', 'b', '', 'c']"),
        ("'a,b,c'.split(',', 2)", "['a', 'b,c']"), ("'héé'.split('')", "['h', 'é', 'é']"), ("''.split(',')", "['']"),
        ("['x', 'y'].join('-')", "'x-y'"), ("[].join()", "''"), ("'aaa'.replace('a', 'b', 2)", "'bba'"),
        ("'ab'.replace('', '-')", "'-a-b-'"), ("'héllo'.substring(1, 3)", "'él'"), ("'héllo'.indexOf('l')", "2"),
        ("'hello'.lastIndexOf('l')", "3"), ("'hello'.lastIndexOf('l', 2)", "2"), ("'hé'.charAt(1)", "'é'"),
        ("'hello'.indexOf('x')", "-1"), ("math.greatest(1, 2.5, 2u)", "2.5"), ("math.least([3, 1, 2])", "1"),
        ("math.abs(-3) + math.sign(-7)", "2"), ("math.floor(-1.5)", "-2.0"), ("math.round(2.5)", "3.0"),
        ("math.sqrt(16)", "4.0"), ("math.isNaN(0.0 / 0.0)", "true"),
        ("optional.of({'a': 1}).a.optMap(x, x + 1).orValue(0)", "2"), ("{'a': 1}[?'b'].orValue(7)", "7"),
        ("{'b': 1}.transformMap(k, v, v + 1)", "{'b': 2}"), ("[[1, 2], [3]].map(l, l.map(x, x * 2))", "[[2, 4], [6]]"),
        ("[1, 2].map(data, data + 1)", "[2, 3]"),
        ("-9223372036854775808", "-9223372036854775807 - 1"), ("!false", "true"), ("// note\n1", "1"),
    ]) func gives(source: String, expected: String) throws {
        let value = try Self.evaluate(source)
        let wanted = try Self.evaluate(expected)
        #expect(CELValue.equal(value, wanted), "\(source) gave \(value)")
    }

    @Test(arguments: [
        ("1 / 0", "divide-by-zero"), ("9223372036854775807 + 1", "overflow"), ("data.nope", "no-such-key"),
        ("1 + 1.0", "bad-type"),
        ("[1][3]", "bad-index"), ("timestamp('yesterday')", "bad-value"), ("'a'.matches('(')", "bad-regex"),
        ("1 ? 2 : 3", "bad-type"),
        ("timestamp(9223372036854775807)", "overflow"), ("-duration('-9223372036854775808ns')", "overflow"),
        ("[1, 1000].map(a, [1].map(b, a)).size() > 0 ? {1.5: 2} : {}", "bad-key"), ("{1: 2, 1u: 3}", "repeated-key"),
        ("'abc'.substring(2, 9)", "bad-index"),
        ("'aaaaaaaaaaaaaaaa'" + String(repeating: ".replace('a', 'aaaaaaaaaaaaaaaa')", count: 6), "too-long"),
        ("optional.none().value()", "no-value"),
        (Array(repeating: "1", count: 300).joined(separator: " + "), "bad-expression"),
        ("type(1)(2)", "bad-expression"), ("google.protobuf.Int64Value{value: 1}", "bad-expression"),
        ("data.nope == 1 || false", "no-such-key"), ("timestamp(data.at).getHours('Mars/Base')", "unknown-time-zone"),
    ]) func fails(source: String, code: String) {
        #expect(errorCode { _ = try Self.evaluate(source) } == code)
    }

    /// Each part asks for little; all of it is too much.
    @Test func workIsLimited() {
        let inner = Self.thousand + ".all(y, y in " + Self.thousand + ")"
        for source in [
            Self.thousand + ".all(x, " + inner + ")",
            Self.thousand + ".map(x, [x] + " + Self.thousand + ").size() > 0",
        ] { #expect(errorCode { _ = try Self.evaluate(source) } == "too-long") }
    }

    @Test(arguments: [
        "", "1 +", "(1", "data.", "a b", "1 ++ 2", "'open", "unknown + 1", "nofunc(1)", "has(1)", "[1, 2",
        String(repeating: "(", count: 200),
    ])
    func isRefusedWhenCompiled(source: String) {
        #expect(errorCode { _ = try CELProgram(source) } != nil)
    }
}
