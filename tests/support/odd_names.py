"""Names that people give to files, of which a grammar or a shell makes something else."""

ODD = (
    *("josé", "mes résultats/läufe ①", "e\u0301 decomposed", "图片", "日本語 フォルダ", "Ελλάδα", "мои данные", "صور"),
    *("emoji 🙂", "my photos", " leading", "trailing ", "two  spaces", "tab\there", "line\nbreak"),
    *("Kopie (1)", "(1)", "a(b", "f(x,y)", "a=b", "=a", "a==b", "a,b", "a, b", ",a", "a,", "a:b", ":a"),
    *("C:\\Users\\x", "tail\\", "tail\\\\", "a\\'b", "a\\,b", "it's", "'a' and 'b'", 'say "hi"', "'", '"'),
    *("`x`", "$HOME", "a$b", "$", "{}", "a{b}", "{a: 1}", "[", "]", "[1]", "a[1]", "[a,b", "100%", "#1 best"),
    *("a@b", "R&D", "x;y", "a!b", "a|b", "a?b", "*", "a*b", "<a>", "a^b", "-x", "--x", "+x", "~x", "a~b"),
    *(".", "..", "./a", ".hidden", "1", "007", "2012_2013", "1e3", "1_0", "0x10", "-1", "1.", ".5", "inf"),
    *("nan", "true", "True", "no", "NULL", "None", "choice(a,b)", "glob(*)", "range(1,3)", "str(1)"),
    *("choice", "@a", "a/"),
)  # fmt: skip
