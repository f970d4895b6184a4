import java.io.FileWriter;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.Map;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What a driver program did, as the program itself knows it.
 *
 * Owns the markers in the statements' texts, the lines of the journal, and the text form of values.
 */
final class Journal {
    private static final Pattern MARKER = Pattern.compile("/\\* d=\\S+ j=(\\d+) \\*/");
    private static final Pattern PLACE = Pattern.compile("/\\*\\*/");
    private final String name;
    private final FileWriter file;
    private final Map<String, Integer> numbers = new HashMap<>();

    Journal(String name) throws IOException {
        this.name = name;
        this.file = new FileWriter(System.getenv("PGW_JOURNAL"), StandardCharsets.UTF_8, true);
    }

    static int rounds() {
        String rounds = System.getenv("PGW_ROUNDS");
        return rounds == null ? 1 : Integer.parseInt(rounds);
    }

    /** Gives each empty comment in a text its marker. Equal texts keep equal numbers, in every round. */
    String mark(String text) {
        int[] count = {0};
        String marked = PLACE.matcher(text).replaceAll(place -> {
            int number = numbers.computeIfAbsent(count[0]++ + text, key -> numbers.size() + 1);
            return "/* d=" + name + " j=" + number + " */";
        });
        expect("a place for the marker", count[0] > 0, true);
        return marked;
    }

    /** One execution of the first marked statement of a text. Absent claims are null; `params` null is no claim. */
    void line(String marked, int pid, Integer rows, Integer affected, String sqlstate, Long copied, Object[] params)
            throws IOException {
        Matcher marker = MARKER.matcher(marked);
        expect("a marker", marker.find(), true);
        StringBuilder line = new StringBuilder("{\"d\":\"" + name + "\",\"j\":" + marker.group(1) + ",\"pid\":" + pid);
        line.append(",\"rows\":" + rows + ",\"affected\":" + affected + ",\"copy_bytes\":" + copied);
        line.append(",\"sqlstate\":" + quoted(sqlstate));
        if (params != null) {
            line.append(",\"params\":[");
            line.append(String.join(",", Arrays.stream(params).map(value -> quoted(shown(value))).toList())).append("]");
        }
        file.write(line.append("}\n").toString());
        file.flush();
    }

    /** A value as the server's output function prints it. */
    static String shown(Object value) {
        if (value == null) {
            return null;
        } else if (value instanceof Boolean truth) {
            return truth ? "t" : "f";
        } else if (value instanceof byte[] bytes) {
            return "\\x" + HexFormat.of().formatHex(bytes);
        } else if (value instanceof java.math.BigDecimal number) {
            return number.toPlainString();
        } else if (value instanceof Object[] list) {
            return "{" + String.join(",", Arrays.stream(list).map(Journal::shown).toList()) + "}";
        }
        return value.toString();
    }

    static void expect(String what, Object got, Object wanted) {
        if (!wanted.equals(got)) {
            System.err.println(what + ": expected " + wanted + ", got " + got);
            System.exit(1);
        }
    }

    private static String quoted(String text) {
        if (text == null) {
            return "null";
        }
        StringBuilder out = new StringBuilder("\"");
        for (char letter : text.toCharArray()) {
            if (letter == '"' || letter == '\\') {
                out.append('\\').append(letter);
            } else if (letter < ' ') {
                out.append(String.format("\\u%04x", (int) letter));
            } else {
                out.append(letter);
            }
        }
        return out.append('"').toString();
    }
}
