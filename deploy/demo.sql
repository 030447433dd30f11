-- A real database for the demonstration: the Unicode character table and the readings of the Han characters, from
-- Debian's package unicode-data, with indexes.
PRAGMA journal_mode = OFF;
PRAGMA synchronous = OFF;
CREATE TABLE characters(code TEXT, name TEXT, category TEXT, combining INT, bidi TEXT, decomposition TEXT,
  decimal_value TEXT, digit TEXT, numeric_value TEXT, mirrored TEXT, old_name TEXT, comment TEXT,
  upper TEXT, lower TEXT, title TEXT);
CREATE TABLE han(code TEXT, property TEXT, value TEXT);
.mode ascii
.separator ; "\n"
.import /usr/share/unicode/UnicodeData.txt characters
.separator "\t" "\n"
.import "|bzcat /usr/share/unicode/Unihan_Readings.txt.bz2 /usr/share/unicode/Unihan_OtherMappings.txt.bz2 | grep '^U'" han
CREATE INDEX characters_by_name ON characters(name);
CREATE INDEX han_by_code ON han(code, property);
