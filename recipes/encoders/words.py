"""The vocabulary of `vfm-tiny-text`: words of reports and narrations, and letters for all others.

It is the same for everybody and made from nobody's texts, so that a tokenizer that is handed on says nothing of the words that it has seen.
"""

from __future__ import annotations

import string

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
NUMBERS = 200  # whole numbers up to this one are one token
ENDINGS = """
s es ed ing ly er or al ial ic ical ion tion ation ment ness ity ive able ous ious y ary ory ist ism ectomy itis oscopy oscopic otomy ostomy
oma osis graphy gram graph logy logical ular oid less ful en ize ized ization
"""
COMMON = """
a about above across after again all along also always an and another any are around as at away back be because been before begin beginning
behind being below better between both but by can case change clear close come complete confirm could did different do does done down during
each early either end enough even every evidence expose exposed fine first for found free from full further get give go going good hand hard
has have having held here high hold holding how however if image in into is it its just keep last late later left less let like little long
look low made main make many may middle more most move moves moving much must near need new next no normal not now of off on once one only
open or other our out over own part patient place placed point position possible present put ready right same second see seen she should
show shown side site size slow small so some start step still straight such sure take taken than that the their them then there these they
thing third this those through time to together too top toward towards try turn two under until up upper use used using very view visible
was watch way we well were what when where which while will with within without work would yes you your zero
"""
SURGERY = """
abdomen abdominal access adhesion adhesions anastomosis anatomy angle aorta apply area artery aspirate assistant bag balloon band base bed
bile bipolar bladder bleeding blood blunt bowel bring calot camera capsule capsulorhexis carefully cartilage cataract catheter cautery
cavity cholecystectomy clean cleaning clip clipped clipper clipping clips clot coagulate coagulation coagulating colon common connective
control cornea critical cut cutting cystic deliver diaphragm dissect dissected dissecting dissection dissector divide divided dividing drain
drainage duct duodenum electrocautery energy enter entry eversion exploration expose exposure extract extraction eye fascia fat field fluid
forceps freed fundus gallbladder gas gauze gently grasp grasped grasper grasping guide harmonic hemostasis hepatic hepatocystic hernia hook
hydrodissection hysterectomy identified identify implant incise incision infundibulum injury insert inserted insertion inspect inspection
instrument instruments irrigate irrigation irrigator iris kidney knot laparoscope laparoscopic laparoscopy laser lateral lens ligament
ligate ligated ligation liver lobe lower medial mesentery mesh mobilise mobilization mobilize muscle myotomy needle nephrectomy nerve node
nodes omentum operation operative ovary pack packaging packed pancreas pedicle pelvic pelvis peritoneal peritoneum phaco phacoemulsification
phase plane plate pneumoperitoneum port portal preparation prepare probe procedure prostate prostatectomy pull pulled pupil pyloric rectum
remove removed removing resect resection retina retract retracted retracting retraction retractor retrieve ring robot robotic safety
scissors scope seal sealed sealing serosa sheath skin sleeve smoke specimen spleen sponge staple stapler stapling stomach stone stump
suction surgeon surgery surgical suture suturing swab table target tear tension thermal tie tip tissue tool tools traction transect
transected triangle trocar trocars tube tumour tumor ureter uterus valve vein vessel vessels visualise visualize vitreous wall wash watching
window wound wrap yag
"""
HEART = """
acute akinesia akinetic aneurysm aortic apex apical ascending atrial atrium axis basal beat beats biplane bundle calcified calcification
cardiac cardiomyopathy cavity cervical chamber chambers chordae chronic clinical colour color compared conclusion concentric consistent
contraction coronary cuspid degree diastole diastolic diameter dilated dilatation dimension doppler dysfunction dyskinesia eccentric echo
echocardiogram echocardiography effusion ejection elevated enlarged estimated excellent failure fair fibrillation findings flow focal four
fraction function global gradient grade heart hypertension hypertrophy hypokinesia hypokinetic impaired impression indexed inferior
inferolateral interatrial interventricular intact jet leaflet leaflets limited long lvef mass mean measured mild mildly minute mitral
moderate moderately motion murmur myocardial normal obstruction paradoxical parasternal pericardial pericardium per plax poor posterior
preserved pressure previous primary prolapse prosthesis pulmonary pulse quality rate reduced reduction regional regurgitation relaxation
report restrictive rhythm root rupture rv lv la ra septal septum severe severely short sinus size stable stenosis strain stroke structure
study subcostal suboptimal systole systolic tachycardia tamponade tethering thickened thickness thrombus transthoracic trace tricuspid
trivial velocity ventricle ventricular vena cava volume walls year years old chest lung liver brain abdomen scan ultrasound frame video clip
picture cm mm ml kg mmhg percent
"""
DAILY = """
add bottle bowl bread chop cook cup cupboard cut dish door drawer dry fill food fridge fry glass hands kitchen knife lid lights mix onion
oven pan peel pick plate pot pour rinse salt slice spoon stir stove tap throw walk water wipe ball kick pass player run score shot team goal
game jump person people man woman child talk phone car bike street room chair table book paper
"""


def vocabulary() -> dict[str, int]:
    """Token -> number, the same every time: special tokens, letters and signs (also within a word), numbers, words, endings."""
    signs = [*string.ascii_lowercase, *string.digits, *string.punctuation, "°", "²", "µ", "–", "’"]
    words = [word for theme in (COMMON, SURGERY, HEART, DAILY) for word in theme.split()]
    tokens = [*SPECIAL, *signs, *(f"##{sign}" for sign in signs), *(str(number) for number in range(10, NUMBERS + 1))]
    tokens += [*words, *(f"##{ending}" for ending in ENDINGS.split())]
    return {token: number for number, token in enumerate(dict.fromkeys(tokens))}
